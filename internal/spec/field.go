package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// field is one key of the mapping that a T is written as: how it is read,
// and what the schema and the reference say of it.
type field[T any] struct {
	about    string // what it does, in a sentence or two
	shape    shape
	usual    string   // the default, as one would write it; in parentheses: what it amounts to
	examples []string // as one would write them
	unmet    *unmet[T]
	read     func(r *reader, n *strictyaml.Node, to *T)
	strictyaml.Key
}

// unmet is what a field can ask for that nothing acts on yet.
type unmet[T any] struct {
	what string // the part of it; empty: whatever is asked
	hint string // what to do without
	// asks tells whether it is asked for. Nil: the reader took note of it,
	// see reader.note.
	asks func(*T) bool
}

// named is the field, with the part of it that is meant.
func (u *unmet[T]) named(field string) string {
	if u.what == "" {
		return field
	}
	return field + " (" + strings.ReplaceAll(u.what, "`", "") + ")"
}

// block is a mapping and everything that it may hold.
type block[T any] struct {
	name   string // in the schema and the reference: resources, model.tgi
	what   string // in messages: a service, `resources`
	about  string
	fields []field[T]
	keys   []strictyaml.Key
}

func newBlock[T any](name, what, about string, fields ...[]field[T]) *block[T] {
	b := &block[T]{name: name, what: what, about: about}
	for _, list := range fields {
		b.fields = append(b.fields, list...)
	}
	for _, f := range b.fields {
		b.keys = append(b.keys, f.Key)
	}
	return b
}

// into reads n as the block; false when n is no mapping.
func (b *block[T]) into(r *reader, n *strictyaml.Node, to *T) bool {
	return r.Keys(n, b.what, b.keys, func(i int, value *strictyaml.Node) { b.fields[i].read(r, value, to) })
}

// lift makes the fields of a part fields of the whole.
func lift[T, P any](fields []field[P], part func(*T) *P) []field[T] {
	lifted := make([]field[T], 0, len(fields))
	for _, f := range fields {
		whole := field[T]{Key: f.Key, about: f.about, shape: f.shape, usual: f.usual, examples: f.examples,
			read: func(r *reader, n *strictyaml.Node, to *T) { f.read(r, n, part(to)) }}
		if u := f.unmet; u != nil {
			whole.unmet = &unmet[T]{what: u.what, hint: u.hint}
			if u.asks != nil {
				whole.unmet.asks = func(to *T) bool { return u.asks(part(to)) }
			}
		}
		lifted = append(lifted, whole)
	}
	return lifted
}

// only leaves the fields of these names, in their order.
func only[T any](fields []field[T], names ...string) []field[T] {
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

// usually gives a field another default.
func usually[T any](fields []field[T], name, usual string) []field[T] {
	changed := slices.Clone(fields)
	for i := range changed {
		if changed[i].Name == name {
			changed[i].usual = usual
		}
	}
	return changed
}

// later is a field of a later dialect that is checked, but kept nowhere:
// nothing acts on it. check tells whether the value asks for anything.
func later[T any](name, about string, s shape, hint string, check func(r *reader, n *strictyaml.Node) bool) field[T] {
	return field[T]{
		Key: strictyaml.Key{Name: name, Nullable: true}, about: about, shape: s, unmet: &unmet[T]{hint: hint},
		read: func(r *reader, n *strictyaml.Node, _ *T) {
			if check(r, n) {
				r.note(n, n.Path, hint)
			}
		},
	}
}

// required, nullable: short for the two kinds of key that are not plain.
func required(name, write string) strictyaml.Key {
	return strictyaml.Key{Name: name, Required: write}
}

func nullable(name string) strictyaml.Key { return strictyaml.Key{Name: name, Nullable: true} }

func plain(name string) strictyaml.Key { return strictyaml.Key{Name: name} }

// unmetIn tells which fields of v ask for what nothing acts on yet.
func (b *block[T]) unmetIn(v *T) Problems {
	var all Problems
	for _, f := range b.fields {
		if f.unmet != nil && f.unmet.asks != nil && f.unmet.asks(v) {
			all = append(all, unsupported(f.Name, f.unmet.named(f.Name), f.unmet.hint))
		}
	}
	return all
}
