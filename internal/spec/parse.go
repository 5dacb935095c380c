package spec

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/human"
	"dstack/internal/strictyaml"
)

// Configuration is what one *.dstack.yml asks for: a *Service, *Fleet,
// *Volume or *Gateway. Its JSON is the normalised form of the wire.
type Configuration interface {
	// Unsupported tells what it asks for that nothing acts on yet; nil: all
	// of it is acted on. The problems have paths, but no places.
	Unsupported() Problems
}

// The types of configuration: those that are read, and those of the original
// that are not.
var (
	kinds      = []string{"service", "fleet", "volume", "gateway"}
	otherKinds = []string{"dev-environment", "task"}
)

// Read reads one configuration of any type. The error, if any, is Problems:
// all there are, in file order.
func Read(file string, text []byte) (Configuration, error) {
	r := newReader()
	var c Configuration
	if root := strictyaml.Load(text, r.Problems); root != nil {
		r.tree = root
		c = r.root(root)
	}
	problems := r.report(file, text)
	if problems == nil {
		return c, nil
	}
	if s, ok := c.(*Service); ok && !problems.Unsupported() { // a wrong name alone is no mistake of the file
		problems = append(problems, Locate(file, text, s.NameProblems())...)
		slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Col-b.Col) })
	}
	return nil, problems
}

// Parse reads one service. Another type of configuration is a problem, which
// says that it is not supported yet.
func Parse(file string, text []byte) (*Service, error) {
	c, err := Read(file, text)
	if err != nil {
		return nil, err
	}
	s, ok := c.(*Service)
	if !ok {
		return nil, Locate(file, text, c.Unsupported())
	}
	return s, nil
}

// reader turns a tree into a configuration. Its methods report what is wrong
// and return what they could read.
type reader struct {
	*strictyaml.Problems
	tree         *strictyaml.Node // of the whole file; nil: it is no YAML
	notes        []NotYet
	replicasRead bool // so that scaling can be held against them
	groups       bool // replicas are in groups, which have commands of their own
}

// NotYet is something that was read and is right, but that nothing acts on,
// and that is kept nowhere else.
type NotYet struct{ Path, What, Hint string }

func newReader() *reader { return &reader{Problems: &strictyaml.Problems{Elsewhere: elsewhere}} }

// note remembers that n asks for what nothing acts on yet.
func (r *reader) note(n *strictyaml.Node, what, hint string) {
	r.notes = append(r.notes, NotYet{n.Path, what, hint})
}

// report returns what was found, with the lines of the file.
func (r *reader) report(file string, text []byte) Problems {
	if !r.Any() {
		return nil
	}
	var all Problems
	for _, p := range r.All() {
		all = append(all, Problem{
			File: file, Line: p.Line, Col: p.Col, Width: p.Width, Path: p.Path,
			Message: clean(p.Message), Hint: clean(p.Hint), Unsupported: p.Later,
		})
	}
	addSource(all, text, r.tree)
	return all
}

// addSource fills in the line of each problem and the one before it.
func addSource(all Problems, text []byte, root *strictyaml.Node) {
	if len(text) > strictyaml.MaxBytes {
		return
	}
	lines := masked(text, root)
	line := func(n int) string {
		if n < 1 || n > len(lines) {
			return ""
		}
		return strings.TrimRight(lines[n-1], "\r")
	}
	for i := range all {
		all[i].Source, all[i].Before = line(all[i].Line), line(all[i].Line-1)
	}
}

// root reads a whole document.
func (r *reader) root(n *strictyaml.Node) Configuration {
	switch {
	case n.IsNull():
		r.At(n, "the file is empty", "begin with a line: type: service")
		return nil
	case n.Kind != strictyaml.Mapping:
		r.At(n, "a configuration is a mapping of keys, not "+n.Shown(), "begin with a line: type: service")
		return nil
	}
	kind := n.Get("type")
	switch kindOf(kind) {
	case "":
		r.NotYet(kind, "type "+kind.Text, "this version reads "+strings.Join(kinds, ", "))
		return nil // its fields are none of ours
	case "fleet":
		return r.fleet(n)
	case "volume":
		return r.volume(n)
	case "gateway":
		return r.gateway(n)
	}
	return r.service(n)
}

// kindOf is the type whose fields the file has, also where its name is
// misspelled; empty: one that is not read. Without a type it is a service.
func kindOf(n *strictyaml.Node) string {
	if !n.IsScalar() {
		return "service"
	}
	if slices.Contains(otherKinds, n.Text) {
		return ""
	}
	return cmp.Or(human.Nearest(n.Text, kinds), "service")
}

// into returns a reader of optional text.
func into[T any](to func(*T) *Text) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		text, _ := r.Text(n)
		*to(v) = Text(text)
	}
}

// word returns a reader of one of some words.
func word[T any](to func(*T) *Text, allowed ...string) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		if text, ok := r.OneOf(n, allowed...); ok {
			*to(v) = Text(text)
		}
	}
}

// filled reads text that cannot be empty.
func (r *reader) filled(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if ok && v == "" {
		r.At(n, "this cannot be empty", "write something")
	}
	return v
}

// above0 reads a finite number above zero.
func (r *reader) above0(n *strictyaml.Node, hint string) float64 {
	v, ok := strictyaml.FloatOf(n)
	switch {
	case !ok:
		r.At(n, n.Shown()+" is not a number", "write "+hint)
	case v <= 0:
		r.At(n, n.Shown()+" is not greater than 0", "write "+hint)
	}
	return v
}

// texts reads a list of text.
func (r *reader) texts(n *strictyaml.Node, what string) []string {
	items, ok := r.Items(n, what)
	list := make([]string, 0, len(items))
	if !ok {
		return list
	}
	for _, item := range items {
		if item.IsNull() {
			r.At(item, "there is an empty item in "+what, `remove it, or write ""`)
			continue
		}
		if v, ok := r.Text(item); ok {
			list = append(list, v)
		}
	}
	return list
}
