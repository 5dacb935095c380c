package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// field is one key of a mapping that is read into a T: how its value is read,
// and how the JSON Schema and the reference describe it.
type field[T any] struct {
	description string // for the schema and the reference, in one or two sentences
	shape       shape
	defaultText string   // the default as YAML; in parentheses: a description of it
	examples    []string // as YAML
	unsupported *unsupportedUse[T]
	read        func(r *reader, n *strictyaml.Node, to *T)
	strictyaml.Key
}

// unsupportedUse describes a use of a field that is valid but not implemented
// yet.
type unsupportedUse[T any] struct {
	what string // the unsupported values; empty: any use of the field
	hint string // what to do instead
	// isUsed reports whether a T makes that use of the field. Nil: the use is
	// recorded while reading, see reader.addUnsupportedUse.
	isUsed func(*T) bool
}

// describe returns the name of the field and, in parentheses, of the
// unsupported values.
func (u *unsupportedUse[T]) describe(field string) string {
	if u.what == "" {
		return field
	}
	return field + " (" + strings.ReplaceAll(u.what, "`", "") + ")"
}

// mapping describes a YAML mapping that is read into a T: its keys, and its
// name in the schema and in messages.
type mapping[T any] struct {
	name        string // name in the schema and the reference: resources, model.tgi
	what        string // subject of messages: a service, `resources`
	description string
	fields      []field[T]
	keys        []strictyaml.Key
}

func newMapping[T any](name, what, about string, fields ...[]field[T]) *mapping[T] {
	b := &mapping[T]{name: name, what: what, description: about}
	for _, list := range fields {
		b.fields = append(b.fields, list...)
	}
	for _, f := range b.fields {
		b.keys = append(b.keys, f.Key)
	}
	return b
}

// read reads n into to and reports problems. It is false if n is not a mapping.
func (b *mapping[T]) read(r *reader, n *strictyaml.Node, to *T) bool {
	return r.ReadKeys(n, b.what, b.keys, func(i int, value *strictyaml.Node) { b.fields[i].read(r, value, to) })
}

// liftFields turns the fields of a part into fields of the whole T that
// contains it.
func liftFields[T, P any](fields []field[P], part func(*T) *P) []field[T] {
	lifted := make([]field[T], 0, len(fields))
	for _, f := range fields {
		liftedField := field[T]{Key: f.Key, description: f.description, shape: f.shape, defaultText: f.defaultText, examples: f.examples,
			read: func(r *reader, n *strictyaml.Node, to *T) { f.read(r, n, part(to)) }}
		if u := f.unsupported; u != nil {
			liftedField.unsupported = &unsupportedUse[T]{what: u.what, hint: u.hint}
			if u.isUsed != nil {
				liftedField.unsupported.isUsed = func(to *T) bool { return u.isUsed(part(to)) }
			}
		}
		lifted = append(lifted, liftedField)
	}
	return lifted
}

// selectFields returns the fields with these names, in the order of the names.
func selectFields[T any](fields []field[T], names ...string) []field[T] {
	chosen := make([]field[T], 0, len(names))
	for _, name := range names {
		for _, f := range fields {
			if f.Name == name {
				chosen = append(chosen, f)
			}
		}
	}
	return chosen
}

// withDefault returns the fields with another default for one of them.
func withDefault[T any](fields []field[T], name, defaultText string) []field[T] {
	changed := slices.Clone(fields)
	for i := range changed {
		if changed[i].Name == name {
			changed[i].defaultText = defaultText
		}
	}
	return changed
}

// unsupportedField returns a field of later versions of dstack that is not
// implemented: its value is checked and then discarded. check reports whether
// the value asks for anything.
func unsupportedField[T any](name, about string, s shape, hint string, check func(r *reader, n *strictyaml.Node) bool) field[T] {
	return field[T]{
		Key: strictyaml.Key{Name: name, Nullable: true}, description: about, shape: s, unsupported: &unsupportedUse[T]{hint: hint},
		read: func(r *reader, n *strictyaml.Node, _ *T) {
			if check(r, n) {
				r.addUnsupportedUse(n, n.Path, hint)
			}
		},
	}
}

// requiredKey returns a key that must be set. write is shown to the user as
// what to write.
func requiredKey(name, write string) strictyaml.Key {
	return strictyaml.Key{Name: name, Required: write}
}

// nullableKey returns a key for which null means the same as leaving it out.
func nullableKey(name string) strictyaml.Key { return strictyaml.Key{Name: name, Nullable: true} }

// plainKey returns an optional key that cannot be null.
func plainKey(name string) strictyaml.Key { return strictyaml.Key{Name: name} }

// findUnsupported returns a problem for each field of which v makes an
// unsupported use.
func (b *mapping[T]) findUnsupported(v *T) Problems {
	var all Problems
	for _, f := range b.fields {
		if f.unsupported != nil && f.unsupported.isUsed != nil && f.unsupported.isUsed(v) {
			all = append(all, newUnsupported(f.Name, f.unsupported.describe(f.Name), f.unsupported.hint))
		}
	}
	return all
}
