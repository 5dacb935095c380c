package cli

import (
	"bytes"
	"encoding/json"
	"errors"
)

// orderedObject is a JSON object that keeps the order of its keys, because
// templates can print it.
type orderedObject struct {
	keys   []string
	values map[string]json.RawMessage
}

// setKey sets the value of a key. A new key comes last.
func (o *orderedObject) setKey(name string, value json.RawMessage) {
	if o.values == nil {
		o.values = map[string]json.RawMessage{}
	}
	if _, there := o.values[name]; !there {
		o.keys = append(o.keys, name)
	}
	o.values[name] = value
}

// merge sets every key of a JSON object.
func (o *orderedObject) merge(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := name.(string) // keys are strings
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		o.setKey(key, value)
	}
	return nil
}

func (o *orderedObject) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encodeString(name))
		b.WriteByte(':')
		b.Write(o.values[name])
	}
	b.WriteByte('}')
	return b.Bytes()
}

func encodeString(text string) json.RawMessage {
	quoted, err := json.Marshal(text)
	if err != nil { // not reached: strings always encode
		return json.RawMessage(`""`)
	}
	return quoted
}
