package spec

import (
	"bytes"
	"encoding/json"
	"time"
)

// MeaningJSON returns everything that a service means, with every default: the wire form,
// in its order, and what 0.18.10 cannot express. It parses to an equal service, except for
// Resources.Explicit.
func (s Service) MeaningJSON() ([]byte, error) {
	wire, err := s.marshalPlain()
	if err != nil {
		return nil, err
	}
	fuller := map[string]any{"port": sourcePort(s.Port), "resources": s.Resources.newMeaning()}
	if s.Model != nil {
		fuller["model"] = sourceModel{*s.Model}
	}
	if s.Scaling != nil {
		fuller["scaling"] = s.Scaling.newMeaning()
	}
	var groups []meaningGroup
	for _, g := range s.Groups {
		groups = append(groups, g.newMeaning())
	}
	if groups != nil {
		fuller["replicas"] = nil // the sum of the groups
	}
	more, err := marshalJSON(meaning{Groups: groups, Gateway: gatewayJSON(s.Gateway), Probes: s.Probes, RateLimits: orEmpty(s.RateLimits), Files: orEmpty(s.Files), Repos: orEmpty(s.Repos), StripPrefix: true,
		DrainTimeout: Seconds(s.EffectiveDrainTimeout() / time.Second), Hold: s.Hold})
	if err != nil {
		return nil, err
	}
	if wire, err = replaceValues(wire, fuller); err != nil {
		return nil, err
	}
	return append(append(bytes.TrimSuffix(wire, []byte("}")), ','), more[1:]...), nil
}

// MeaningJSON returns everything that a fleet means: the wire form, and the makers of GPUs
// and processors, which 0.18.10 cannot express.
func (f Fleet) MeaningJSON() ([]byte, error) {
	wire, err := f.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return replaceValues(wire, map[string]any{"resources": f.Resources.newMeaning()})
}

// meaning is the fields of a service that the wire form does not have.
type meaning struct {
	Groups       []meaningGroup `json:"groups"` // null: none
	Gateway      gatewayJSON    `json:"gateway"`
	Probes       []Probe        `json:"probes"` // null: not set
	RateLimits   []RateLimit    `json:"rate_limits"`
	Files        []File         `json:"files"`
	Repos        []Repo         `json:"repos"`
	StripPrefix  bool           `json:"strip_prefix"` // false is not supported yet
	DrainTimeout Seconds        `json:"drain_timeout"`
	Hold         *Hold          `json:"hold"` // null: the gateway's
}

type meaningScaling struct {
	wireScaling
	Window Seconds `json:"window"`
}

func (s *Scaling) newMeaning() *meaningScaling {
	if s == nil {
		return nil
	}
	return &meaningScaling{s.newWire(), s.EffectiveWindow()}
}

// meaningGroup is a group in MeaningJSON. What is null there is as in the service.
type meaningGroup struct {
	sourceGroup
	Scaling   *meaningScaling  `json:"scaling"`
	Resources meaningResources `json:"resources"`
}

func (g Group) newMeaning() meaningGroup {
	return meaningGroup{sourceGroup: g.newSource(), Scaling: g.Scaling.newMeaning(), Resources: g.Resources.newMeaning()}
}

type meaningResources struct {
	CPU     any        `json:"cpu"`
	Memory  Range[GB]  `json:"memory"`
	ShmSize *GB        `json:"shm_size"`
	GPU     *sourceGPU `json:"gpu"`
	Disk    *Disk      `json:"disk"`
}

// meaningCPU is a number of processors of one type.
type meaningCPU struct {
	Arch  Text       `json:"arch"`
	Count Range[int] `json:"count"`
}

func (r Resources) newMeaning() meaningResources {
	m := meaningResources{CPU: r.CPU, Memory: r.Memory, ShmSize: r.ShmSize, Disk: r.Disk}
	if r.CPUArch != "" {
		m.CPU = meaningCPU{r.CPUArch, r.CPU}
	}
	if r.GPU != nil {
		m.GPU = &sourceGPU{r.GPU.Vendor, wireGPU(*r.GPU)}
	}
	return m
}

// replaceValues replaces values of a JSON object by key, and keeps the order of the keys.
func replaceValues(object []byte, values map[string]any) ([]byte, error) {
	tokens := json.NewDecoder(bytes.NewReader(object))
	if _, err := tokens.Token(); err != nil { // the brace
		return nil, err
	}
	replaced := []byte("{")
	for tokens.More() {
		key, err := tokens.Token()
		if err != nil {
			return nil, err
		}
		var value any = new(json.RawMessage)
		if err := tokens.Decode(value); err != nil {
			return nil, err
		}
		name, _ := key.(string) // keys of an object are strings
		if other, ok := values[name]; ok {
			value = other
		}
		pair, err := marshalJSON(map[string]any{name: value})
		if err != nil {
			return nil, err
		}
		if len(replaced) > 1 {
			replaced = append(replaced, ',')
		}
		replaced = append(replaced, pair[1:len(pair)-1]...)
	}
	return append(replaced, '}'), nil
}
