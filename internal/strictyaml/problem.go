package strictyaml

import (
	"cmp"
	"slices"
)

// Problem is one problem of a document, with its position.
type Problem struct {
	Path             string
	Line, Col, Width int
	Message          string
	Hint             string
	Unsupported      bool // the value is valid, but not supported yet
}

// Fault is the error of a parser for single values: what is wrong, and what to
// write instead. The caller adds the position.
type Fault struct{ Message, Hint string }

// Error returns the message.
func (f *Fault) Error() string { return f.Message }

// Problems collects problems while a document is read.
type Problems struct {
	// HintForUnknown returns the hint for an unknown key that is valid
	// elsewhere; empty: it is not. Optional.
	HintForUnknown func(n *Node, key string) string

	// SchemaCommand prints the schema of the document; empty: `dstack schema`.
	SchemaCommand string

	found      []Problem
	misspelled map[string]bool // paths of fields that an unknown key was probably meant to be
}

// IsMisspelled reports whether the field at a path was probably set under a
// misspelled key, so that it should not be reported as missing.
func (p *Problems) IsMisspelled(path string) bool { return p.misspelled[path] }

// maxProblems is the maximum number of problems reported for one document.
const maxProblems = 200

// Add adds a problem at a node.
func (p *Problems) Add(n *Node, message, hint string) {
	p.record(Problem{Path: n.Path, Line: n.Line, Col: n.Col, Width: n.Width, Message: message, Hint: hint})
}

// addAt adds a problem at a position.
func (p *Problems) addAt(line, col, width int, message, hint string) {
	p.record(Problem{Line: line, Col: col, Width: width, Message: message, Hint: hint})
}

// record appends a problem unless there are too many.
func (p *Problems) record(one Problem) {
	switch {
	case len(p.found) < maxProblems:
		p.found = append(p.found, one)
	case len(p.found) == maxProblems:
		p.found = append(p.found, Problem{Line: one.Line, Col: one.Col, Width: one.Width,
			Message: "there are too many problems to show", Hint: "check that this file is a configuration"})
	}
}

// isFull reports whether further problems will be dropped.
func (p *Problems) isFull() bool { return len(p.found) > maxProblems }

// Any reports whether there are problems.
func (p *Problems) Any() bool { return len(p.found) > 0 }

// All returns all problems in file order. Problems without a position keep the
// order in which they were added.
func (p *Problems) All() []Problem {
	all := slices.Clone(p.found)
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	// An alias repeats the problems of its value; report them once.
	return slices.CompactFunc(all, func(a, b Problem) bool {
		return a.Line > 0 && a.Line == b.Line && a.Col == b.Col && a.Message == b.Message
	})
}
