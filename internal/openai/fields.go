package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// requestFields decodes the fields of a request and keeps the first problem. A
// field that is null counts as missing. Messages never contain the value of a
// field.
type requestFields struct {
	raw     map[string]json.RawMessage
	problem *Problem
}

func readFields(body []byte) (*requestFields, *Problem) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil || all == nil {
		return nil, &Problem{Status: 400, Code: "invalid_request", Message: ErrNotJSON.Error()}
	}
	return &requestFields{raw: all}, nil
}

// rawField returns the JSON of a field, or nil if it is missing.
func (f *requestFields) rawField(name string) json.RawMessage {
	if raw := f.raw[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

// keepProblem stores p unless there is a problem already.
func (f *requestFields) keepProblem(p *Problem) {
	if f.problem == nil {
		f.problem = p
	}
}

// decodeField decodes a field into v. It returns false if the field is missing
// or invalid.
func (f *requestFields) decodeField(name, kind string, v any) bool {
	raw := f.rawField(name)
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		f.keepProblem(invalidField(name, "must be "+kind))
		return false
	}
	return true
}

func (f *requestFields) readFlag(name string) (value bool) {
	f.decodeField(name, "true or false", &value)
	return value
}

func (f *requestFields) readText(name string) (value string, ok bool) {
	ok = f.decodeField(name, "a text", &value)
	return value, ok
}

func (f *requestFields) readList(name string) (values []json.RawMessage) {
	f.decodeField(name, "a list", &values)
	return values
}

// readInteger reads an integer between minValue and maxValue, inclusive.
func (f *requestFields) readInteger(name string, minValue, maxValue int64) (value int64, ok bool) {
	if !f.decodeField(name, "a whole number", &value) {
		return 0, false
	}
	switch {
	case value < minValue:
		f.keepProblem(invalidField(name, fmt.Sprintf("must be at least %d", minValue)))
	case value > maxValue:
		f.keepProblem(invalidField(name, fmt.Sprintf("must be at most %d", maxValue)))
	}
	return value, true
}

// readNumber reads a number between minValue and maxValue, inclusive.
func (f *requestFields) readNumber(name string, minValue, maxValue float64) (value float64, ok bool) {
	if !f.decodeField(name, "a number", &value) {
		return 0, false
	}
	if value < minValue || value > maxValue {
		limits := "from " + formatShort(minValue) + " to " + formatShort(maxValue)
		if math.IsInf(maxValue, 1) {
			limits = "at least " + formatShort(minValue)
		}
		f.keepProblem(invalidField(name, "must be "+limits))
	}
	return value, true
}

func formatShort(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// readTexts reads a text or a list of texts.
func (f *requestFields) readTexts(name string) (values []string) {
	if raw := f.rawField(name); raw != nil && raw[0] == '"' {
		one, _ := f.readText(name)
		return []string{one}
	}
	var some []*string // pointers detect null
	f.decodeField(name, "a text or a list of texts", &some)
	for _, one := range some {
		if one == nil {
			f.keepProblem(invalidField(name, "must be a text or a list of texts"))
			return nil
		}
		values = append(values, *one)
	}
	return values
}

// readSeed reads a signed or unsigned integer of 64 bits. The seeds of TGI are
// unsigned.
func (f *requestFields) readSeed(name string) *uint64 {
	raw := f.rawField(name)
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
	f.keepProblem(invalidField(name, "must be a whole number"))
	return nil
}

// keyValue is an entry of a JSON object.
type keyValue struct {
	key   string
	value json.RawMessage
}

// decodeObject returns the entries of a JSON object in order, and false for
// any other value.
func decodeObject(raw json.RawMessage) (all []keyValue, ok bool) {
	in := json.NewDecoder(bytes.NewReader(raw))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, false
		}
		var p keyValue
		p.key, _ = key.(string)
		if err := in.Decode(&p.value); err != nil {
			return nil, false
		}
		all = append(all, p)
	}
	return all, true
}

// encodeObject is the inverse of decodeObject.
func encodeObject(all []keyValue) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, p := range all {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(encodeJSON(p.key))
		out.WriteByte(':')
		out.Write(p.value)
	}
	out.WriteByte('}')
	return out.Bytes()
}

// encodeArray returns a JSON array of values.
func encodeArray(values []json.RawMessage) json.RawMessage {
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

// encodeJSON encodes v without HTML escapes. It panics if v has no JSON form,
// which is a programming error.
func encodeJSON(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("openai: cannot encode a value as JSON: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
