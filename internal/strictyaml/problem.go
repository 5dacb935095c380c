package strictyaml

import (
	"cmp"
	"slices"
)

// Problem is one thing wrong with a document.
type Problem struct {
	Path             string
	Line, Col, Width int
	Message          string
	Hint             string
	Unsupported      bool // right, but not read yet, see AddUnsupported
}

// Fault is what a value parser says: what is wrong and what to write
// instead. The decoder adds the place.
type Fault struct{ Message, Hint string }

// Error returns the message.
func (f *Fault) Error() string { return f.Message }

// Problems collects what is found, and hands it out in file order.
type Problems struct {
	// HintForUnknown may say where a key belongs that is not known where it
	// stands; empty: nowhere.
	HintForUnknown func(n *Node, key string) string

	found      []Problem
	misspelled map[string]bool // paths that an unknown key was likely meant to be
}

// IsMisspelled tells whether the key at a path is not missing, but misspelled.
func (p *Problems) IsMisspelled(path string) bool { return p.misspelled[path] }

// maxProblems is how many are told of one document. Whoever has more has
// another file than was meant.
const maxProblems = 200

// Add adds a problem at a node.
func (p *Problems) Add(n *Node, message, hint string) {
	p.record(Problem{Path: n.Path, Line: n.Line, Col: n.Col, Width: n.Width, Message: message, Hint: hint})
}

// addAt adds a problem at a place that has no node.
func (p *Problems) addAt(line, col, width int, message, hint string) {
	p.record(Problem{Line: line, Col: col, Width: width, Message: message, Hint: hint})
}

func (p *Problems) record(one Problem) {
	switch {
	case len(p.found) < maxProblems:
		p.found = append(p.found, one)
	case len(p.found) == maxProblems:
		p.found = append(p.found, Problem{Line: one.Line, Col: one.Col, Width: one.Width,
			Message: "there are too many problems to show", Hint: "check that this file is a configuration"})
	}
}

// isFull tells that what is found from now on is told to nobody.
func (p *Problems) isFull() bool { return len(p.found) > maxProblems }

// Any tells whether anything was found.
func (p *Problems) Any() bool { return len(p.found) > 0 }

// All returns every problem in file order; those without a place keep the
// order in which they were found.
func (p *Problems) All() []Problem {
	all := slices.Clone(p.found)
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	// What an alias repeats is one mistake.
	return slices.CompactFunc(all, func(a, b Problem) bool {
		return a.Line > 0 && a.Line == b.Line && a.Col == b.Col && a.Message == b.Message
	})
}
