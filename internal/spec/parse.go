package spec

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/human"
	"dstack/internal/strictyaml"
)

// Configuration is a parsed *.dstack.yml: a *Service, *Fleet, *Volume or
// *Gateway. It marshals to the normal form of the wire format.
type Configuration interface {
	// Unsupported returns a problem for each feature that the configuration
	// uses and that is not implemented yet; nil if there is none. The problems
	// have paths, but no positions; see Locate.
	Unsupported() Problems
}

// The types of configuration that can be parsed, and the types that only the
// original dstack supports.
var (
	supportedTypes   = []string{"service", "fleet", "volume", "gateway"}
	unsupportedTypes = []string{"dev-environment", "task"}
)

// ParseConfiguration parses a configuration of any type. The error is Problems,
// with all problems in file order.
func ParseConfiguration(file string, text []byte) (Configuration, error) {
	r := newReader()
	var c Configuration
	if root := strictyaml.Load(text, r.Problems); root != nil {
		r.tree, r.dialect = root, new(findDialect(root))
		c = r.readConfiguration(root)
	}
	problems := r.buildProblems(file, text)
	s, isService := c.(*Service)
	if isService {
		problems = append(problems, Locate(file, text, s.LaunchProblems())...)
	}
	if problems == nil {
		return c, nil
	}
	if isService && !problems.OnlyUnsupported() { // an invalid name is reported only along with other problems
		problems = append(problems, Locate(file, text, s.NameProblems())...)
		slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Col-b.Col) })
	}
	return nil, problems
}

// FindType returns the type of configuration that a file is meant to be, also if it has problems; "" if that is not known.
func FindType(text []byte) string {
	root := strictyaml.Load(text, &strictyaml.Problems{})
	if root == nil || root.Kind != strictyaml.Mapping {
		return ""
	}
	return chooseType(root.Get("type"))
}

// ParseService parses a service. For other types of configuration, the error
// says that they are not supported yet. The error is Problems.
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

// reader converts a YAML tree to a configuration. Its methods report problems
// and return as much as could be read.
type reader struct {
	*strictyaml.Problems
	tree             *strictyaml.Node // the whole file; nil: it is not valid YAML
	dialect          *DialectReport   // of the file; nil: the text comes from a program, which means one dialect
	unsupported      []UnsupportedNote
	replicasValid    bool               // false: checkScaling would report the same mistake again
	hasReplicaGroups bool               // groups have their own commands
	groupNodes       []*strictyaml.Node // the items of the list of groups
}

// UnsupportedNote records a valid but unsupported use of a field whose value is
// not kept.
type UnsupportedNote struct{ Path, What, Hint string }

func newReader() *reader {
	return &reader{Problems: &strictyaml.Problems{HintForUnknown: hintForUnknown}}
}

// addUnsupportedUse records that n uses a feature that is not implemented yet.
func (r *reader) addUnsupportedUse(n *strictyaml.Node, what, hint string) {
	r.unsupported = append(r.unsupported, UnsupportedNote{n.Path, what, hint})
}

// buildProblems returns the collected problems with the lines of the file; nil
// if there are none.
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

// addSource adds to each problem its line and the line before it, masked.
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
		return nil // the fields of an unsupported type are not checked
	case "fleet":
		return r.readFleet(n)
	case "volume":
		return r.readVolume(n)
	case "gateway":
		return r.readGateway(n)
	}
	return r.readService(n)
}

// chooseType returns the type whose fields are read. A misspelled type counts
// as the nearest one, an unknown or missing type as a service. It is empty for
// a type that is known but not supported.
func chooseType(n *strictyaml.Node) string {
	if !n.IsScalar() {
		return "service"
	}
	if slices.Contains(unsupportedTypes, n.Text) {
		return ""
	}
	return cmp.Or(human.Nearest(n.Text, supportedTypes), "service")
}

// readTextInto returns a read function for a text field.
func readTextInto[T any](to func(*T) *Text) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		text, _ := r.ReadText(n)
		*to(v) = Text(text)
	}
}

// readWordInto returns a read function for a text field with a fixed set of
// values.
func readWordInto[T any](to func(*T) *Text, allowed ...string) func(*reader, *strictyaml.Node, *T) {
	return func(r *reader, n *strictyaml.Node, v *T) {
		if text, ok := r.ReadOneOf(n, allowed...); ok {
			*to(v) = Text(text)
		}
	}
}

// readNonEmpty reads text that must not be empty.
func (r *reader) readNonEmpty(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if ok && v == "" {
		r.Add(n, "the value cannot be empty", "write a value, or remove the line")
	}
	return v
}

// readPositive reads a finite number greater than 0.
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
