// Package strictyaml reads YAML and JSON into one tree that keeps the place
// of everything, refuses what is ambiguous or oversized, and collects every
// problem instead of stopping at the first.
package strictyaml

import (
	"strconv"
	"strings"
)

// The bounds of what is read. They hold after aliases are followed, so that
// a small file cannot stand for a large one.
const (
	MaxBytes = 1 << 20
	MaxDepth = 64
	MaxNodes = 10_000
)

// Kind is what a node is.
type Kind int

// Every kind there is. A quoted scalar is always a String.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Mapping
	Sequence
)

// Node is one value and where it stands. Aliases are followed and merge keys
// resolved, so a tree is only these three: scalars, mappings, sequences.
type Node struct {
	Kind   Kind
	Text   string  // a scalar as it was written, without its quotes
	Quoted bool    // in quotes, or as a block
	Pairs  []Pair  // of a mapping, each key once
	Items  []*Node // of a sequence
	Path   string  // resources.gpu, commands.0; empty for the root
	Line   int     // from 1; 0 where the place is not known, as in JSON
	Col    int     // from 1, in characters
	Width  int     // of what a caret should underline, in characters
}

// Pair is one entry of a mapping.
type Pair struct {
	Key   *Node // its Path is that of the value
	Value *Node
}

// Get returns the value of a key, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, p := range n.Pairs {
		if p.Key.Text == key {
			return p.Value
		}
	}
	return nil
}

// IsNull tells whether there is no value: no key, or nothing behind it.
func (n *Node) IsNull() bool { return n == nil || n.Kind == Null }

// IsScalar tells whether n is a single value other than null.
func (n *Node) IsScalar() bool {
	return n != nil && n.Kind != Null && n.Kind != Mapping && n.Kind != Sequence
}

// Describe names n in a message: a scalar as it was written, shortened.
func (n *Node) Describe() string {
	switch n.Kind {
	case Null:
		return "an empty value"
	case Mapping:
		return "a mapping"
	case Sequence:
		return "a list"
	case Bool, Int, Float, String:
		return "`" + shortenText(n.Text) + "`"
	}
	return "kind " + strconv.Itoa(int(n.Kind))
}

// shortenText keeps messages to one line.
func shortenText(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}

// Find returns the node at a path, or the deepest one on the way to it,
// together with the key that leads there (nil for the root and for items).
func (n *Node) Find(path string) (node, key *Node) {
	node = n
	for path != "" && node != nil {
		next, nextKey := node.findChild(path)
		if next == nil {
			return node, key
		}
		node, key = next, nextKey
		if path == node.Path {
			return node, key
		}
	}
	return node, key
}

// findChild is the child whose path is path or leads to it.
func (n *Node) findChild(path string) (node, key *Node) {
	leads := func(p string) bool { return p == path || strings.HasPrefix(path, p+".") }
	for _, p := range n.Pairs {
		if leads(p.Value.Path) {
			return p.Value, p.Key
		}
	}
	for _, item := range n.Items {
		if leads(item.Path) {
			return item, nil
		}
	}
	return nil, nil
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
