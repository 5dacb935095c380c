package spec

import (
	"cmp"
	"slices"
	"strings"

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
	supportedTypes   = []string{"service", "fleet", "volume", "gateway"}
	unsupportedTypes = []string{"dev-environment", "task"}
)

// ParseConfiguration reads one configuration of any type. The error, if any, is Problems:
// all there are, in file order.
func ParseConfiguration(file string, text []byte) (Configuration, error) {
	r := newReader()
	var c Configuration
	if root := strictyaml.Load(text, r.Problems); root != nil {
		r.tree = root
		c = r.readConfiguration(root)
	}
	problems := r.buildProblems(file, text)
	if problems == nil {
		return c, nil
	}
	if s, ok := c.(*Service); ok && !problems.OnlyUnsupported() { // a wrong name alone is no mistake of the file
		problems = append(problems, Locate(file, text, s.NameProblems())...)
		slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Col-b.Col) })
	}
	return nil, problems
}

// ParseService reads one service. Another type of configuration is a problem, which
// says that it is not supported yet.
func ParseService(file string, text []byte) (*Service, error) {
	c, err := ParseConfiguration(file, text)
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
	tree             *strictyaml.Node // of the whole file; nil: it is no YAML
	unsupported      []UnsupportedNote
	replicasValid    bool // so that scaling can be held against them
	hasReplicaGroups bool // replicas are in groups, which have commands of their own
}

// UnsupportedNotes is something that was read and is right, but that nothing acts on,
// and that is kept nowhere else.
type UnsupportedNote struct{ Path, What, Hint string }

func newReader() *reader {
	return &reader{Problems: &strictyaml.Problems{HintForUnknown: hintForUnknown}}
}

// addUnsupportedUse remembers that n asks for what nothing acts on yet.
func (r *reader) addUnsupportedUse(n *strictyaml.Node, what, hint string) {
	r.unsupported = append(r.unsupported, UnsupportedNote{n.Path, what, hint})
}

// buildProblems returns what was found, with the lines of the file.
func (r *reader) buildProblems(file string, text []byte) Problems {
	if !r.Any() {
		return nil
	}
	var all Problems
	for _, p := range r.All() {
		all = append(all, Problem{
			File: file, Line: p.Line, Col: p.Col, Width: p.Width, Path: p.Path,
			Message: removeControls(p.Message), Hint: removeControls(p.Hint), Unsupported: p.Unsupported,
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
	lines := maskLines(text, root)
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

// readConfiguration reads a whole document.
func (r *reader) readConfiguration(n *strictyaml.Node) Configuration {
	switch {
	case n.IsNull():
		r.Add(n, "the file is empty", "begin the file with the line: type: service")
		return nil
	case n.Kind != strictyaml.Mapping:
		r.Add(n, "a configuration must be a mapping, not "+n.Describe(), "begin the file with the line: type: service")
		return nil
	}
	kind := n.Get("type")
	switch chooseType(kind) {
	case "":
		r.AddUnsupported(kind, "type "+kind.Text, "this version supports "+strings.Join(supportedTypes, ", "))
		return nil // its fields are none of ours
	case "fleet":
		return r.readFleet(n)
	case "volume":
		return r.readVolume(n)
	case "gateway":
		return r.readGateway(n)
	}
	return r.readService(n)
}

// chooseType is the type whose fields the file has, also where its name is
// misspelled; empty: one that is not read. Without a type it is a service.
func chooseType(n *strictyaml.Node) string {
	if !n.IsScalar() {
		return "service"
	}
	if slices.Contains(unsupportedTypes, n.Text) {
		return ""
	}
	return cmp.Or(strictyaml.Nearest(n.Text, supportedTypes), "service")
}

// readTextInto returns a reader of optional text.
func readTextInto[T any](to func(*T) *Text) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		text, _ := r.ReadText(n)
		*to(v) = Text(text)
	}
}

// readWordInto returns a reader of one of some words.
func readWordInto[T any](to func(*T) *Text, allowed ...string) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		if text, ok := r.ReadOneOf(n, allowed...); ok {
			*to(v) = Text(text)
		}
	}
}

// readNonEmpty reads text that cannot be empty.
func (r *reader) readNonEmpty(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if ok && v == "" {
		r.Add(n, "the value cannot be empty", "write a value, or remove the line")
	}
	return v
}

// readPositive reads a finite number above zero.
func (r *reader) readPositive(n *strictyaml.Node, hint string) float64 {
	v, ok := strictyaml.ParseFloat(n)
	switch {
	case !ok:
		r.Add(n, n.Describe()+" is not a number", "write "+hint)
	case v <= 0:
		r.Add(n, n.Describe()+" is not greater than 0", "write "+hint)
	}
	return v
}

// readTexts reads a list of text.
func (r *reader) readTexts(n *strictyaml.Node, what string) []string {
	items, ok := r.ReadItems(n, what)
	list := make([]string, 0, len(items))
	if !ok {
		return list
	}
	for _, item := range items {
		if item.IsNull() {
			r.Add(item, what+" has an empty item", `remove it, or write ""`)
			continue
		}
		if v, ok := r.ReadText(item); ok {
			list = append(list, v)
		}
	}
	return list
}
