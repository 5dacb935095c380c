package spec

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// Locate adds file, line and column to problems that have only a path, and
// sorts them in file order. A problem keeps line 0 if the file contains no part
// of its path.
func Locate(file string, text []byte, problems Problems) Problems {
	all := slices.Clone(problems)
	root := strictyaml.Load(text, &strictyaml.Problems{})
	for i := range all {
		p := &all[i]
		p.File = file
		if root == nil || p.Line > 0 {
			continue
		}
		if n := findNode(root, p.Path); n != nil {
			p.Line, p.Col, p.Width = n.Line, n.Col, n.Width
		}
	}
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	addSource(all, text, root)
	return all
}

// findNode returns the node to underline for a path: the value if it is a
// scalar or has no key, otherwise its key. It is nil if the file contains no
// part of the path.
func findNode(root *strictyaml.Node, path string) *strictyaml.Node {
	if rest, ok := strings.CutPrefix(path, "groups"); ok && root.Get("groups") == nil && isGroupList(root.Get("replicas")) {
		path = "replicas" + rest // the older spelling
	}
	n, key := root.Find(path)
	if name, ok := strings.CutPrefix(path, "env."); ok && n.Kind == strictyaml.Sequence {
		for _, item := range n.Items {
			if item.Text == name || strings.HasPrefix(item.Text, name+"=") {
				return item
			}
		}
	}
	switch {
	case n == root && path != "":
		return nil
	case n.IsScalar() || key == nil:
		return n
	}
	return key
}
