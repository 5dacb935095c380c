package spec

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order. It has no groups: see joinGroups.
func (s Service) MarshalJSON() ([]byte, error) { return s.joinGroups().marshalPlain() }

// marshalPlain writes the fields that 0.18.10 has.
func (s Service) marshalPlain() ([]byte, error) {
	type plain Service
	if s.Type == "" {
		s.Type = "service"
	}
	s.Env, s.Setup = orEmpty(s.Env), orEmpty(s.Setup)
	s.Volumes, s.Commands = orEmpty(s.Volumes), orEmpty(s.Commands)
	return marshalJSON(plain(s))
}

// marshalJSON is json.Marshal without escaping < > &, so that commands stay
// readable. Callers that embed the result in HTML must escape it.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func orEmpty[S ~[]E, E any](list S) S {
	if list == nil {
		return S{}
	}
	return list
}

// readJSON reads one JSON value in the same way as a YAML file.
func readJSON(text []byte, read func(*reader, *strictyaml.Node)) error {
	r := newReader()
	if n := strictyaml.LoadJSON(text, r.Problems); n != nil {
		read(r, n)
	}
	if problems := r.buildProblems("", nil); problems != nil {
		return problems
	}
	return nil
}

// UnmarshalJSON reads the wire form and every spelling that a file may use. The
// error is Problems.
func (s *Service) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		switch v := r.readConfiguration(n).(type) {
		case *Service:
			*s = *v
		case *Fleet, *Volume, *Gateway:
			r.AddUnsupported(n.Get("type"), "type "+n.Get("type").Text+" as a run", "submit a service")
		}
	})
}

// UnmarshalJSON reads a profile; null leaves it unchanged.
func (p *Profile) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if !n.IsNull() {
			*p = r.readProfile(n)
		}
	})
}

// UnmarshalJSON reads resources in every spelling; null leaves them unchanged.
func (r *Resources) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(read *reader, n *strictyaml.Node) {
		if !n.IsNull() {
			*r = read.readResources(n)
		}
	})
}

// MarshalJSON writes null for the empty text.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return marshalJSON(string(t))
}

// MarshalJSON writes 8 as 8.0, as dstack 0.18.10 does.
func (g GB) MarshalJSON() ([]byte, error) { return marshalFloat(float64(g)) }

// marshalFloat writes a number with a decimal point or an exponent, so that
// every client reads it as a float.
func marshalFloat(v float64) ([]byte, error) {
	b, err := marshalJSON(v)
	if err == nil && !bytes.ContainsAny(b, ".e") {
		b = append(b, ".0"...)
	}
	return b, err
}

// jsonFloat is a float that is written by marshalFloat.
type jsonFloat float64

func (f jsonFloat) MarshalJSON() ([]byte, error) { return marshalFloat(float64(f)) }

// wireScaling is the wire form of Scaling.
type wireScaling struct {
	Metric         string    `json:"metric"`
	Target         jsonFloat `json:"target"`
	ScaleUpDelay   Seconds   `json:"scale_up_delay"`
	ScaleDownDelay Seconds   `json:"scale_down_delay"`
}

func (s Scaling) newWire() wireScaling {
	return wireScaling{s.Metric, jsonFloat(s.Target), s.ScaleUpDelay, s.ScaleDownDelay}
}

// MarshalJSON writes the target as a float. The metric is always rps, since the
// 0.18.10 client rejects any other.
func (s Scaling) MarshalJSON() ([]byte, error) {
	s.Metric = MetricRPS
	return marshalJSON(s.newWire())
}

// MarshalJSON writes a volume as dstack 0.18.10 does. Folders of the machine,
// which it does not know, are written in the form of later versions.
func (m Mount) MarshalJSON() ([]byte, error) {
	if m.InstancePath != "" {
		return marshalJSON(m.wireInstanceMount())
	}
	var name any = m.Name
	if len(m.OtherNames) > 0 {
		name = append([]string{m.Name}, m.OtherNames...)
	}
	return marshalJSON(struct {
		Name any    `json:"name"`
		Path string `json:"path"`
	}{name, m.Path})
}

// wireGPU is the wire form of GPU.
type wireGPU GPU

// MarshalJSON writes a maker without a model as the model name, as dstack
// 0.18.10 does.
func (g GPU) MarshalJSON() ([]byte, error) {
	if g.Vendor != "" && len(g.Name) == 0 {
		g.Name = []string{string(g.Vendor)}
	}
	return marshalJSON(wireGPU(g))
}

// MarshalJSON writes a string such as "7200" or "off".
func (m MaxDuration) MarshalJSON() ([]byte, error) {
	if m.Off {
		return []byte(`"off"`), nil
	}
	return []byte(strconv.Quote(strconv.FormatInt(int64(m.Seconds), 10))), nil
}

// UnmarshalJSON reads a duration or `off`.
func (m *MaxDuration) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if v := r.readMaxDuration(n); v != nil {
			*m = *v
		}
	})
}

// MarshalJSON writes a boolean, or a mapping of events and duration.
func (r Retry) MarshalJSON() ([]byte, error) {
	if r.Always != nil {
		return marshalJSON(*r.Always)
	}
	return marshalJSON(struct {
		OnEvents []string `json:"on_events"`
		Duration *Seconds `json:"duration"`
	}{orEmpty(r.OnEvents), r.Duration})
}

// UnmarshalJSON reads a boolean or a mapping.
func (r *Retry) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(read *reader, n *strictyaml.Node) {
		if v := read.readRetry(n); v != nil {
			*r = *v
		}
	})
}

// tgiModel is the wire form of a model with format tgi.
type tgiModel struct {
	Type         string `json:"type"`
	Name         string `json:"name"`
	Format       string `json:"format"`
	ChatTemplate Text   `json:"chat_template"`
	EOSToken     Text   `json:"eos_token"`
}

func (m Model) wireTGI() tgiModel {
	return tgiModel{m.Type, m.Name, m.Format, m.ChatTemplate, m.EOSToken}
}

// MarshalJSON writes only the keys of the model's format.
func (m Model) MarshalJSON() ([]byte, error) {
	if m.Format == "tgi" {
		return marshalJSON(m.wireTGI())
	}
	return marshalJSON(struct {
		Type   string `json:"type"`
		Name   string `json:"name"`
		Format string `json:"format"`
		Prefix string `json:"prefix"`
	}{m.Type, m.Name, m.Format, m.Prefix})
}

// UnmarshalJSON reads a model of either format.
func (m *Model) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if v := r.readModel(n); v != nil {
			*m = *v
		}
	})
}

// MarshalJSON writes a mapping in the order of the variables. An open variable
// is written as {"key": "NAME"}.
func (e Env) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range e {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshalJSON(v.Name)
		if err != nil {
			return nil, err
		}
		var value any = v.Value
		if v.Open {
			value = map[string]string{"key": v.From}
		}
		text, err := marshalJSON(value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(text)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// UnmarshalJSON reads a mapping or a list; null leaves it unchanged.
func (e *Env) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if !n.IsNull() {
			*e = r.readEnv(n)
		}
	})
}
