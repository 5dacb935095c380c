// Package strictyaml parses YAML and JSON into one tree. Each node has its
// position. The parser rejects ambiguous and oversized documents, and collects
// all problems instead of stopping at the first.
package strictyaml

import (
	"strconv"
	"strings"
)

// Limits for documents. Aliases are followed before counting, so that a small
// file cannot expand to a large one.
const (
	MaxBytes = 1 << 20
	MaxDepth = 64
	MaxNodes = 10_000
)

// Kind is the kind of a node.
type Kind int

// The kinds. A quoted scalar is always a String.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Mapping
	Sequence
)

// Node is one value and its position. Aliases are followed and merge keys
// resolved, so a tree consists of scalars, mappings and sequences only.
type Node struct {
	Kind   Kind
	Text   string  // text of a scalar as written, without quotes
	Quoted bool    // written in quotes or as a block
	Pairs  []Pair  // entries of a mapping; keys are unique
	Items  []*Node // items of a sequence
	Path   string  // such as resources.gpu or commands.0; empty for the root
	Line   int     // numbered from 1; 0: unknown, as in JSON
	Col    int     // numbered from 1, in characters
	Width  int     // number of characters to underline
}

// Pair is one entry of a mapping.
type Pair struct {
	Key   *Node // has the path of the value
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

// IsNull reports whether n is nil or null.
func (n *Node) IsNull() bool { return n == nil || n.Kind == Null }

// IsScalar reports whether n is a scalar other than null.
func (n *Node) IsScalar() bool {
	return n != nil && n.Kind != Null && n.Kind != Mapping && n.Kind != Sequence
}

// Describe returns n as shown in messages: a shortened scalar in backquotes, or
// the kind.
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

// shortenText returns s on one line of at most 60 characters.
func shortenText(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}

// Find returns the node at a path, or the deepest existing node on the way to
// it, together with the key of that node (nil for the root and for items).
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

// findChild returns the child that has the path or leads to it, and its key.
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

// joinPath appends a key to a path.
func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
