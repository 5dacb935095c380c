package spec

import (
	"fmt"
	"strings"

	"dstack/internal/strictyaml"
)

var envName = newPattern(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// droppedName matches names that programs can read, but that dash and busybox drop from the
// environment of what they start.
var droppedName = newPattern(`^[a-zA-Z_][a-zA-Z0-9_.-]*$`)

var envShape = defineShape("env", anyOfShape("list of `NAME=value` and `NAME`, or mapping",
	listShape("", patternShape("", "^[a-zA-Z_][a-zA-Z0-9_]*(=|$)").orTypes("boolean")),
	shape{"", schema{"type": "object", "propertyNames": schema{"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
		"additionalProperties": schema{"anyOf": []schema{textShape.schema, mappingShape("env.open").schema}}}}))

var openVarMapping = newMapping("env.open", "an open variable",
	"A variable whose value comes from a variable of another name in your environment.", []field[EnvVar]{
		{Key: requiredKey("key", "key: NAME"), description: "The name of the variable in your environment.",
			shape: patternShape("name", "^[a-zA-Z_][a-zA-Z0-9_]*$").orTypes("boolean"),
			read:  func(r *reader, n *strictyaml.Node, v *EnvVar) { v.From = r.readEnvSource(n) }},
	})

// ParseEnvVar parses `NAME=value`, or `NAME`, which is an open variable. The
// error is a Problem.
func ParseEnvVar(text string) (EnvVar, error) {
	v, f := parseEnvVar(text)
	if f != nil {
		return EnvVar{}, newProblem("env", f)
	}
	return v, nil
}

func parseEnvVar(text string) (EnvVar, *fault) {
	name, value, closed := strings.Cut(text, "=")
	if f := checkEnvName(name); f != nil {
		return EnvVar{}, f
	}
	if !closed {
		return EnvVar{Name: name, Open: true, From: name}, nil
	}
	return EnvVar{Name: name, Value: value}, nil
}

// checkEnvName validates the name of a variable. The problem shows only the
// name, because the text after it may be a secret value.
func checkEnvName(name string) *fault {
	if envName.MatchString(name) {
		return nil
	}
	if name == "" {
		return &fault{Message: "an environment variable has no name",
			Hint: "write NAME=value, or NAME to take it from your environment"}
	}
	hint := "use letters, digits and underscores; the first character cannot be a digit"
	if droppedName.MatchString(name) {
		hint = fmt.Sprintf("use letters, digits and underscores: the sh of most images drops other names; for a program that "+
			"needs this one, write a command: env '%.60s=value' program", name)
	}
	return &fault{Message: fmt.Sprintf("`%.60s` is not a valid name for an environment variable", name), Hint: hint}
}

// readEnv reads a list of `NAME=value` and `NAME`, or a mapping.
func (r *reader) readEnv(n *strictyaml.Node) Env {
	if n.Kind == strictyaml.Mapping {
		return r.readEnvMapping(n)
	}
	if n.IsScalar() { // a scalar may contain a secret, so the message does not show it
		r.Add(n, "`env` must be a list or a mapping, not text", "write a list: [NAME=value]")
		return Env{}
	}
	items, ok := r.ReadItems(n, "`env`")
	env := make(Env, 0, len(items))
	if !ok {
		return env
	}
	seen := map[string]bool{}
	for _, item := range items {
		v, ok := r.readEnvItem(item)
		if !ok {
			continue
		}
		if seen[v.Name] {
			r.Add(item, fmt.Sprintf("duplicate environment variable: `%s`", v.Name), "remove one of them")
			continue
		}
		seen[v.Name] = true
		env = append(env, v)
	}
	return env
}

// readEnvItem reads one item of a list.
func (r *reader) readEnvItem(n *strictyaml.Node) (EnvVar, bool) {
	if n.Kind == strictyaml.Mapping && len(n.Pairs) > 0 {
		name, _, _ := strings.Cut(n.Pairs[0].Key.Text, "=")
		r.Add(n, "in a list, an environment variable must be text, not a mapping",
			fmt.Sprintf("write %s=value, or remove the dash of each item; put text that contains `: ` in quotes", name))
		return EnvVar{}, false
	}
	text, ok := r.ReadText(n)
	if !ok {
		return EnvVar{}, false
	}
	v, f := parseEnvVar(text)
	if f != nil {
		r.AddFault(n, f)
		return EnvVar{}, false
	}
	return v, true
}

// readEnvMapping reads a mapping of names to values.
func (r *reader) readEnvMapping(n *strictyaml.Node) Env {
	env := make(Env, 0, len(n.Pairs))
	for _, p := range n.Pairs {
		if f := checkEnvName(p.Key.Text); f != nil {
			r.AddFault(p.Key, f)
			continue
		}
		v := EnvVar{Name: p.Key.Text}
		switch p.Value.Kind {
		case strictyaml.Null:
			r.Add(p.Key, fmt.Sprintf("`%s` has no value", v.Name),
				fmt.Sprintf("write `%s: \"\"` for an empty value; to take it from your environment, write `env` as "+
					"a list with `- %s`", v.Name, v.Name))
			continue
		case strictyaml.Mapping:
			v.Open = true
			if !openVarMapping.read(r, p.Value, &v) {
				continue
			}
		case strictyaml.Bool, strictyaml.Int, strictyaml.Float, strictyaml.String, strictyaml.Sequence:
			text, ok := r.ReadText(p.Value)
			if !ok {
				continue
			}
			v.Value = text
		}
		env = append(env, v)
	}
	return env
}

// readEnvSource reads the name under which an open variable is looked up.
func (r *reader) readEnvSource(n *strictyaml.Node) string {
	text, ok := r.ReadText(n)
	if f := checkEnvName(text); ok && f != nil {
		r.AddFault(n, f)
	}
	return text
}

// Get returns the value of a variable. It is false for open and unknown
// variables.
func (e Env) Get(name string) (string, bool) {
	for _, v := range e {
		if v.Name == name && !v.Open {
			return v.Value, true
		}
	}
	return "", false
}

// setVar adds a variable, or replaces the one with the same name.
func (e *Env) setVar(v EnvVar) {
	for i := range *e {
		if (*e)[i].Name == v.Name {
			(*e)[i] = v
			return
		}
	}
	*e = append(*e, v)
}
