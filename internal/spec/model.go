package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

// model reads which model the service answers for.
func (r *reader) model(n *strictyaml.Node) *Model {
	if n.Kind == strictyaml.String {
		r.NotYet(n, "model as a name alone", fmt.Sprintf("write model: {type: chat, name: %s, format: openai}", n.Text))
		return nil
	}
	m := &Model{Prefix: "/v1"}
	format := ""
	if f := n.Get("format"); f.IsScalar() {
		format = f.Text
	}
	fields := []strictyaml.Field{
		{Name: "type", Required: "type: chat", Read: func(n *strictyaml.Node) { m.Type, _ = r.OneOf(n, "chat") }},
		{Name: "name", Required: "name: followed by the model's name", Read: func(n *strictyaml.Node) { m.Name = r.filled(n) }},
		{Name: "format", Required: "format: openai", Read: func(n *strictyaml.Node) { m.Format, _ = r.OneOf(n, "openai", "tgi") }},
	}
	prefix := strictyaml.Field{Name: "prefix", Read: func(n *strictyaml.Node) { m.Prefix, _ = r.Text(n) }}
	template := strictyaml.Field{Name: "chat_template", Nullable: true, Read: r.into(&m.ChatTemplate)}
	eos := strictyaml.Field{Name: "eos_token", Nullable: true, Read: r.into(&m.EOSToken)}
	others := map[string]string{}
	switch format {
	case "openai":
		fields = append(fields, prefix)
		others["chat_template"], others["eos_token"] = "tgi", "tgi"
	case "tgi":
		fields = append(fields, template, eos)
		m.Prefix = ""
		others["prefix"] = "openai"
	default: // which fields are right cannot be said
		fields = append(fields, prefix, template, eos)
	}
	for name, of := range others {
		if v := n.Get(name); v != nil {
			r.At(v, fmt.Sprintf("`%s` belongs to format %s", name, of), fmt.Sprintf("remove it, or write format: %s", of))
			fields = append(fields, strictyaml.Field{Name: name, Nullable: true, Read: func(*strictyaml.Node) {}})
		}
	}
	r.Fields(n, "`model`", fields)
	return m
}
