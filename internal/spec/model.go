package spec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"dstack/internal/strictyaml"
)

const modelWords = "{model.openai} or {model.tgi}"

var modelCommon = []field[Model]{
	{Key: required("type", "type: chat"), about: "What the model does.", shape: oneOf("chat"),
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Type, _ = r.OneOf(n, "chat") }},
	{Key: required("name", "name: followed by the model's name"), about: "The name by which clients ask for it.", shape: filledShape, examples: []string{"org/my-model"},
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Name = r.filled(n) }},
}

func formatField(format string) field[Model] {
	return field[Model]{Key: required("format", "format: openai"), about: "What the service itself speaks.", shape: oneOf(format),
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Format, _ = r.OneOf(n, "openai", "tgi") }}
}

var openaiFields = []field[Model]{
	{Key: plain("prefix"), about: "Where the API begins on the service.", usual: "/v1", shape: textShape,
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Prefix, _ = r.Text(n) }},
}

var tgiFields = []field[Model]{
	{Key: nullable("chat_template"), about: "The template, in Jinja, that makes a prompt of messages. Without one it is the one in the model's repository.", shape: textShape,
		examples: []string{`"{% for m in messages %}{{ m.content }}{% endfor %}"`},
		read:     into(func(m *Model) *Text { return &m.ChatTemplate })},
	{Key: nullable("eos_token"), about: "The token that ends an answer. Without one it is the one in the model's repository.", shape: textShape, examples: []string{`"</s>"`},
		read: into(func(m *Model) *Text { return &m.EOSToken })},
	{Key: nullable("bos_token"), about: "The token that begins a prompt, where the template uses `bos_token`. Without one it is the one in the model's repository.", shape: textShape, examples: []string{`"<s>"`},
		read: into(func(m *Model) *Text { return &m.BOSToken })},
	{Key: nullable("chat_template_kwargs"), about: "Further variables for the template.", shape: shape{"mapping", schema{"type": "object"}}, examples: []string{"{enable_thinking: false}"},
		read: func(r *reader, n *strictyaml.Node, m *Model) { m.Kwargs = r.kwargs(n) }},
}

// kwargs reads a mapping with anything in it, as JSON in the order of the
// file.
func (r *reader) kwargs(n *strictyaml.Node) json.RawMessage {
	if n.Kind != strictyaml.Mapping {
		r.At(n, "`chat_template_kwargs` is a mapping of keys, not "+n.Shown(), "write chat_template_kwargs: {enable_thinking: false}")
		return nil
	}
	var b bytes.Buffer
	r.writeJSON(&b, n)
	return b.Bytes()
}

// modelTables are the fields of each format; by the empty format, those of
// both, for files that do not say which.
var modelTables = map[string]*block[Model]{
	"openai": newBlock("model.openai", "`model`", "A service that speaks OpenAI's API.", modelCommon, []field[Model]{formatField("openai")}, openaiFields),
	"tgi":    newBlock("model.tgi", "`model`", "A service that speaks the API of Text Generation Inference.", modelCommon, []field[Model]{formatField("tgi")}, tgiFields),
	"":       newBlock("model", "`model`", "", modelCommon, []field[Model]{formatField("openai")}, openaiFields, tgiFields),
}

// model reads which model the service answers for.
func (r *reader) model(n *strictyaml.Node) *Model {
	if n.IsScalar() {
		return &Model{Type: "chat", Name: r.filled(n), Format: "openai", Prefix: "/v1"}
	}
	m := &Model{Prefix: "/v1"}
	format := ""
	if f := n.Get("format"); f.IsScalar() && modelTables[f.Text] != nil {
		format = f.Text
	}
	table := *modelTables[format]
	for _, other := range []struct {
		of     string
		fields []field[Model]
	}{{"openai", openaiFields}, {"tgi", tgiFields}} {
		if format == "" || other.of == format {
			continue
		}
		for _, f := range other.fields {
			if v := n.Get(f.Name); v != nil {
				r.At(v, fmt.Sprintf("`%s` belongs to format %s", f.Name, other.of), fmt.Sprintf("remove it, or write format: %s", other.of))
				f.Nullable = true
				f.read = func(*reader, *strictyaml.Node, *Model) {}
				table = *newBlock(table.name, table.what, "", table.fields, []field[Model]{f})
			}
		}
	}
	table.into(r, n, m)
	if m.Format == "tgi" {
		m.Prefix = ""
	}
	return m
}
