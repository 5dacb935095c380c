package spec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"dstack/internal/strictyaml"
)

const modelWords = "{model.openai} or {model.tgi}"

var modelCommon = []field[Model]{
	{Key: plainKey("type"), description: "The kind of the model.", defaultText: "chat", shape: oneOfShape("chat"),
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Type, _ = r.ReadOneOf(n, "chat") }},
	{Key: requiredKey("name", "name: followed by the model's name"),
		description: "The name that clients send as `model`.", shape: nonEmptyShape, examples: []string{"org/my-model"},
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Name = r.readNonEmpty(n) }},
}

// formatField returns the field `format` for one format.
func formatField(format string) field[Model] {
	return field[Model]{Key: requiredKey("format", "format: openai"), description: "The API of the service.",
		shape: oneOfShape(format),
		read:  func(r *reader, n *strictyaml.Node, m *Model) { m.Format, _ = r.ReadOneOf(n, "openai", "tgi") }}
}

var openaiFields = []field[Model]{
	{Key: plainKey("prefix"), description: "The path prefix of the API on the service.", defaultText: "/v1",
		shape: textShape,
		read:  func(r *reader, n *strictyaml.Node, m *Model) { m.Prefix, _ = r.ReadText(n) }},
}

var tgiFields = []field[Model]{
	{Key: nullableKey("chat_template"), description: "The Jinja template that turns messages into a prompt. If not " +
		"set, the template in the model's repository is used.", shape: textShape,
		examples: []string{`"{% for m in messages %}{{ m.content }}{% endfor %}"`},
		read:     readTextInto(func(m *Model) *Text { return &m.ChatTemplate })},
	{Key: nullableKey("eos_token"), description: "The token that ends an answer. If not set, the token in the " +
		"model's repository is used.", shape: textShape, examples: []string{`"</s>"`},
		read: readTextInto(func(m *Model) *Text { return &m.EOSToken })},
	{Key: nullableKey("bos_token"), description: "The token that begins a prompt, for templates that use " +
		"`bos_token`. If not set, the token in the model's repository is used.", shape: textShape,
		examples: []string{`"<s>"`},
		read:     readTextInto(func(m *Model) *Text { return &m.BOSToken })},
	{Key: nullableKey("chat_template_kwargs"), description: "Additional variables for the template.",
		shape: shape{"mapping", schema{"type": "object"}}, examples: []string{"{enable_thinking: false}"},
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Kwargs = r.readKwargs(n) }},
}

// readKwargs reads a mapping with any content, as JSON with the keys in the
// order of the file.
func (r *reader) readKwargs(n *strictyaml.Node) json.RawMessage {
	if n.Kind != strictyaml.Mapping {
		r.Add(n, "`chat_template_kwargs` must be a mapping, not "+n.Describe(),
			"write chat_template_kwargs: {enable_thinking: false}")
		return nil
	}
	var b bytes.Buffer
	r.writeJSON(&b, n)
	return b.Bytes()
}

// modelMappings maps each format to its fields. The empty format has the fields
// of both, for mappings without a valid format.
var modelMappings = map[string]*mapping[Model]{
	"openai": newMapping("model.openai", "`model`", "A model whose service has the API of OpenAI.", modelCommon,
		[]field[Model]{formatField("openai")}, openaiFields),
	"tgi": newMapping("model.tgi", "`model`", "A model whose service has the API of Text Generation Inference.",
		modelCommon, []field[Model]{formatField("tgi")}, tgiFields),
	"": newMapping("model", "`model`", "", modelCommon, []field[Model]{formatField("openai")}, openaiFields,
		tgiFields),
}

// readModel reads the name of a model, or a mapping with the fields of its
// format. Fields of the other format are reported.
func (r *reader) readModel(n *strictyaml.Node) *Model {
	if n.IsScalar() {
		if !n.Quoted && isSwitchWord(n.Text) {
			r.Add(n, n.Describe()+" is not the name of a model", "remove the line for a service without a model, or put the name in quotes")
			return nil
		}
		return &Model{Type: "chat", Name: r.readNonEmpty(n), Format: "openai", Prefix: "/v1"}
	}
	m := &Model{Type: "chat", Prefix: "/v1"}
	format := ""
	if f := n.Get("format"); f.IsScalar() && modelMappings[f.Text] != nil {
		format = f.Text
	}
	table := *modelMappings[format]
	for _, other := range []struct {
		of     string
		fields []field[Model]
	}{{"openai", openaiFields}, {"tgi", tgiFields}} {
		if format == "" || other.of == format {
			continue
		}
		for _, f := range other.fields {
			if v := n.Get(f.Name); v != nil {
				r.Add(v, fmt.Sprintf("`%s` can only be used with format: %s", f.Name, other.of),
					fmt.Sprintf("remove it, or set format: %s", other.of))
				f.Nullable = true
				f.read = func(*reader, *strictyaml.Node, *Model) {}
				table = *newMapping(table.name, table.what, "", table.fields, []field[Model]{f})
			}
		}
	}
	table.read(r, n, m)
	if m.Format == "tgi" {
		m.Prefix = ""
	}
	return m
}
