package spec

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// yamlToJSON converts a piece of YAML to JSON. Text that is not valid YAML
// becomes a JSON string.
func yamlToJSON(text string) json.RawMessage {
	r := newReader()
	var b bytes.Buffer
	if n := strictyaml.Load([]byte(text), r.Problems); n != nil {
		r.writeJSON(&b, n)
		return b.Bytes()
	}
	writeString(&b, text)
	return b.Bytes()
}

// writeJSON writes a tree as JSON, and reports values that JSON cannot express.
func (r *reader) writeJSON(b *bytes.Buffer, n *strictyaml.Node) {
	switch n.Kind {
	case strictyaml.Null:
		b.WriteString("null")
	case strictyaml.Bool:
		b.WriteString(strings.ToLower(n.Text))
	case strictyaml.Int, strictyaml.Float:
		r.writeNumber(b, n)
	case strictyaml.String:
		writeString(b, n.Text)
	case strictyaml.Sequence:
		b.WriteByte('[')
		for i, item := range n.Items {
			if i > 0 {
				b.WriteByte(',')
			}
			r.writeJSON(b, item)
		}
		b.WriteByte(']')
	case strictyaml.Mapping:
		b.WriteByte('{')
		for i, p := range n.Pairs {
			if i > 0 {
				b.WriteByte(',')
			}
			writeString(b, p.Key.Text)
			b.WriteByte(':')
			r.writeJSON(b, p.Value)
		}
		b.WriteByte('}')
	}
}

func (r *reader) writeNumber(b *bytes.Buffer, n *strictyaml.Node) {
	if json.Valid([]byte(n.Text)) {
		b.WriteString(n.Text)
		return
	}
	if v, ok := strictyaml.ParseInt(n); ok && n.Kind == strictyaml.Int {
		b.WriteString(strconv.Itoa(v))
		return
	}
	v, ok := strictyaml.ParseFloat(n)
	if !ok {
		r.Add(n, n.Describe()+" cannot be written as a JSON number", "put it in quotes")
	}
	b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
}

func writeString(b *bytes.Buffer, text string) {
	quoted, err := marshalJSON(text)
	if err != nil { // does not happen with a string
		quoted = []byte(`""`)
	}
	b.Write(quoted)
}
