package spec

import (
	"strings"

	"dstack/internal/strictyaml"
)

// written is a piece of YAML as a value of JSON.
func written(text string) any {
	n := strictyaml.Load([]byte(text), &strictyaml.Problems{})
	if n == nil {
		return text
	}
	return plainValue(n)
}

// plainValue is a tree as encoding/json has it.
func plainValue(n *strictyaml.Node) any {
	switch n.Kind {
	case strictyaml.Null:
		return nil
	case strictyaml.Bool:
		return strings.EqualFold(n.Text, "true")
	case strictyaml.Int:
		if v, ok := strictyaml.IntOf(n); ok {
			return v
		}
	case strictyaml.Float:
		if v, ok := strictyaml.FloatOf(n); ok {
			return v
		}
	case strictyaml.Sequence:
		list := make([]any, 0, len(n.Items))
		for _, item := range n.Items {
			list = append(list, plainValue(item))
		}
		return list
	case strictyaml.Mapping:
		m := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			m[p.Key.Text] = plainValue(p.Value)
		}
		return m
	case strictyaml.String:
	}
	return n.Text
}
