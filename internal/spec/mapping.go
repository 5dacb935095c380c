package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// field is one key of the mapping that a T is written as: how it is read,
// and what the schema and the reference say of it.
type field[T any] struct {
	description string // what it does, in a sentence or two
	shape       shape
	defaultText string   // the default, as one would write it; in parentheses: what it amounts to
	examples    []string // as one would write them
	unsupported *unsupportedUse[T]
	read        func(r *reader, n *strictyaml.Node, to *T)
	strictyaml.Key
}

// unsupportedUse is what a field can ask for that nothing acts on yet.
type unsupportedUse[T any] struct {
	what string // the part of it; empty: whatever is asked
	hint string // what to do without
	// isUsed tells whether it is asked for. Nil: the reader took note of it,
	// see reader.note.
	isUsed func(*T) bool
}

// describe is the field, with the part of it that is meant.
func (u *unsupportedUse[T]) describe(field string) string {
	if u.what == "" {
		return field
	}
	return field + " (" + strings.ReplaceAll(u.what, "`", "") + ")"
}

// mapping is a mapping and everything that it may hold.
type mapping[T any] struct {
	name        string // in the schema and the reference: resources, model.tgi
	what        string // in messages: a service, `resources`
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

// read reads n as the block; false when n is no mapping.
func (b *mapping[T]) read(r *reader, n *strictyaml.Node, to *T) bool {
	return r.ReadKeys(n, b.what, b.keys, func(i int, value *strictyaml.Node) { b.fields[i].read(r, value, to) })
}

// liftFields makes the fields of a part fields of the whole.
func liftFields[T, P any](fields []field[P], part func(*T) *P) []field[T] {
	lifted := make([]field[T], 0, len(fields))
	for _, f := range fields {
		whole := field[T]{Key: f.Key, description: f.description, shape: f.shape, defaultText: f.defaultText, examples: f.examples,
			read: func(r *reader, n *strictyaml.Node, to *T) { f.read(r, n, part(to)) }}
		if u := f.unsupported; u != nil {
			whole.unsupported = &unsupportedUse[T]{what: u.what, hint: u.hint}
			if u.isUsed != nil {
				whole.unsupported.isUsed = func(to *T) bool { return u.isUsed(part(to)) }
			}
		}
		lifted = append(lifted, whole)
	}
	return lifted
}

// selectFields leaves the fields of these names, in their order.
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

// withDefault gives a field another default.
func withDefault[T any](fields []field[T], name, usual string) []field[T] {
	changed := slices.Clone(fields)
	for i := range changed {
		if changed[i].Name == name {
			changed[i].defaultText = usual
		}
	}
	return changed
}

// unsupportedField is a field of a later dialect that is checked, but kept nowhere:
// nothing acts on it. check tells whether the value asks for anything.
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

// requiredKey, nullable: short for the two kinds of key that are not plain.
func requiredKey(name, write string) strictyaml.Key {
	return strictyaml.Key{Name: name, Required: write}
}

func nullableKey(name string) strictyaml.Key { return strictyaml.Key{Name: name, Nullable: true} }

func plainKey(name string) strictyaml.Key { return strictyaml.Key{Name: name} }

// findUnsupported tells which fields of v ask for what nothing acts on yet.
func (b *mapping[T]) findUnsupported(v *T) Problems {
	var all Problems
	for _, f := range b.fields {
		if f.unsupported != nil && f.unsupported.isUsed != nil && f.unsupported.isUsed(v) {
			all = append(all, newUnsupported(f.Name, f.unsupported.describe(f.Name), f.unsupported.hint))
		}
	}
	return all
}
