package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// fields reads a request's fields by their type, and remembers the first that
// is wrong. A field that is null is not there. No message repeats a value.
type fields struct {
	all   map[string]json.RawMessage
	wrong *Problem
}

func readFields(body []byte) (*fields, *Problem) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil || all == nil {
		return nil, &Problem{Status: 400, Code: "invalid_request", Message: ErrNotJSON.Error()}
	}
	return &fields{all: all}, nil
}

// get returns a field, nil where it is not there.
func (f *fields) get(name string) json.RawMessage {
	if raw := f.all[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

// fail keeps the first problem.
func (f *fields) fail(p *Problem) {
	if f.wrong == nil {
		f.wrong = p
	}
}

// into decodes a field. It is false where there is none, or a wrong one.
func (f *fields) into(name, kind string, v any) bool {
	raw := f.get(name)
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		f.fail(wrong(name, "must be "+kind))
		return false
	}
	return true
}

func (f *fields) flag(name string) (value bool) {
	f.into(name, "true or false", &value)
	return value
}

func (f *fields) text(name string) (value string, ok bool) {
	ok = f.into(name, "a text", &value)
	return value, ok
}

func (f *fields) list(name string) (values []json.RawMessage) {
	f.into(name, "a list", &values)
	return values
}

// integer reads a whole number from least to most.
func (f *fields) integer(name string, least, most int64) (value int64, ok bool) {
	if !f.into(name, "a whole number", &value) {
		return 0, false
	}
	switch {
	case value < least:
		f.fail(wrong(name, fmt.Sprintf("must be at least %d", least)))
	case value > most:
		f.fail(wrong(name, fmt.Sprintf("must be at most %d", most)))
	}
	return value, true
}

// number reads a number from least to most.
func (f *fields) number(name string, least, most float64) (value float64, ok bool) {
	if !f.into(name, "a number", &value) {
		return 0, false
	}
	if value < least || value > most {
		limits := "from " + short(least) + " to " + short(most)
		if math.IsInf(most, 1) {
			limits = "at least " + short(least)
		}
		f.fail(wrong(name, "must be "+limits))
	}
	return value, true
}

func short(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// texts reads one text or a list of them.
func (f *fields) texts(name string) (values []string) {
	if raw := f.get(name); raw != nil && raw[0] == '"' {
		one, _ := f.text(name)
		return []string{one}
	}
	var some []*string // a null among them is no text
	f.into(name, "a text or a list of texts", &some)
	for _, one := range some {
		if one == nil {
			f.fail(wrong(name, "must be a text or a list of texts"))
			return nil
		}
		values = append(values, *one)
	}
	return values
}

// seed reads any integer of 64 bits. TGI's have no sign.
func (f *fields) seed(name string) *uint64 {
	raw := f.get(name)
	if raw == nil {
		return nil
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		seed := uint64(n)
		return &seed
	}
	if seed, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
		return &seed
	}
	f.fail(wrong(name, "must be a whole number"))
	return nil
}

// pair is a key of an object and its value.
type pair struct {
	key   string
	value json.RawMessage
}

// pairs returns what an object has, in its order. It is false for what is no
// object.
func pairs(raw json.RawMessage) (all []pair, ok bool) {
	in := json.NewDecoder(bytes.NewReader(raw))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, false
		}
		var p pair
		p.key, _ = key.(string)
		if err := in.Decode(&p.value); err != nil {
			return nil, false
		}
		all = append(all, p)
	}
	return all, true
}

// object is the opposite of pairs.
func object(all []pair) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, p := range all {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(plainJSON(p.key))
		out.WriteByte(':')
		out.Write(p.value)
	}
	out.WriteByte('}')
	return out.Bytes()
}

// array is a list of values.
func array(values []json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('[')
	for i, v := range values {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(v)
	}
	out.WriteByte(']')
	return out.Bytes()
}

// plainJSON encodes without the escapes that only pages need. It panics where
// a value has no JSON; none that is given to it is so.
func plainJSON(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("openai: no JSON for a value: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
