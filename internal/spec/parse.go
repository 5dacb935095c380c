package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// Parse reads one service configuration. The error, if any, is Problems:
// all there are, in file order.
func Parse(file string, text []byte) (*Service, error) {
	r := newReader()
	var s *Service
	if root := strictyaml.Load(text, r.Problems); root != nil {
		s = r.root(root)
	}
	if problems := r.report(file, text); problems != nil {
		return nil, problems
	}
	return s, nil
}

// ParseProfiles reads a profiles.yml. The error, if any, is Problems.
func ParseProfiles(file string, text []byte) ([]Profile, error) {
	r := newReader()
	profiles := []Profile{}
	if root := strictyaml.Load(text, r.Problems); root != nil && !root.IsNull() {
		r.Fields(root, "this file", []strictyaml.Field{{
			Name: "profiles", Required: "profiles: followed by a list", Read: func(n *strictyaml.Node) {
				items, _ := r.Items(n, "`profiles`")
				for _, item := range items {
					profiles = append(profiles, r.profile(item))
				}
			},
		}})
	}
	if problems := r.report(file, text); problems != nil {
		return nil, problems
	}
	return profiles, nil
}

func (r *reader) profile(n *strictyaml.Node) Profile {
	var p Profile
	r.Fields(n, "a profile", append(r.paramFields(&p.Params),
		strictyaml.Field{Name: "name", Required: "name: followed by what to call it", Read: func(n *strictyaml.Node) { p.Name = r.filled(n) }},
		strictyaml.Field{Name: "default", Read: func(n *strictyaml.Node) { p.Default, _ = r.Bool(n) }},
	))
	return p
}

// reader turns a tree into a configuration. Its methods report what is wrong
// and return what they could read.
type reader struct{ *strictyaml.Problems }

func newReader() *reader { return &reader{&strictyaml.Problems{}} }

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
	addSource(all, text)
	return all
}

// addSource fills in the line of each problem and the one before it.
func addSource(all Problems, text []byte) {
	if len(text) > strictyaml.MaxBytes {
		return
	}
	lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
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

// The other types of configuration, which this version does not read.
var otherTypes = []string{"dev-environment", "task", "fleet", "gateway", "volume"}

// root reads a whole document.
func (r *reader) root(n *strictyaml.Node) *Service {
	switch {
	case n.IsNull():
		r.At(n, "the file is empty", "begin with a line: type: service")
		return nil
	case n.Kind != strictyaml.Mapping:
		r.At(n, "a configuration is a mapping of keys, not "+n.Shown(), "begin with a line: type: service")
		return nil
	}
	kind := n.Get("type")
	switch {
	case kind == nil:
		r.At(n, "`type` is missing", "add a line: type: service")
	case kind.IsScalar() && slices.Contains(otherTypes, kind.Text):
		r.NotYet(kind, "type "+kind.Text, "this version reads type: service")
		return nil // its fields are none of ours
	}
	return r.service(n)
}

// into returns a reader of optional text.
func (r *reader) into(to *Text) func(*strictyaml.Node) {
	return func(n *strictyaml.Node) {
		v, _ := r.Text(n)
		*to = Text(v)
	}
}

// filled reads text that cannot be empty.
func (r *reader) filled(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if ok && v == "" {
		r.At(n, "this cannot be empty", "")
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
func (r *reader) texts(n *strictyaml.Node, what, hint string) []string {
	items, ok := r.Items(n, what)
	list := make([]string, 0, len(items))
	if !ok {
		return list
	}
	for _, item := range items {
		if item.IsNull() {
			r.At(item, "there is an empty item in "+what, hint)
			continue
		}
		if v, ok := r.Text(item); ok {
			list = append(list, v)
		}
	}
	return list
}
