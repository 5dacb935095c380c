package cli

import (
	"bytes"
	"encoding/json"
	"errors"
)

// ordered is a JSON object that keeps the order of its keys: templates see
// it.
type ordered struct {
	names  []string
	values map[string]json.RawMessage
}

// set gives a key its value, in its old place if it has one.
func (o *ordered) set(name string, value json.RawMessage) {
	if o.values == nil {
		o.values = map[string]json.RawMessage{}
	}
	if _, there := o.values[name]; !there {
		o.names = append(o.names, name)
	}
	o.values[name] = value
}

// read sets every key of an object.
func (o *ordered) read(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := name.(string) // a key is always text
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		o.set(key, value)
	}
	return nil
}

func (o *ordered) json() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range o.names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quotedJSON(name))
		b.WriteByte(':')
		b.Write(o.values[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}

func quotedJSON(text string) json.RawMessage {
	quoted, err := json.Marshal(text)
	if err != nil { // text always is JSON
		return json.RawMessage(`""`)
	}
	return quoted
}
