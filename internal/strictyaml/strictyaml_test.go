package strictyaml

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// formatTree formats a tree on one line. Scalars have the first letter of their
// kind as a prefix.
func formatTree(n *Node) string {
	if n == nil {
		return "nil"
	}
	switch n.Kind {
	case Mapping:
		parts := []string{}
		for _, p := range n.Pairs {
			parts = append(parts, p.Key.Text+":"+formatTree(p.Value))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case Sequence:
		parts := []string{}
		for _, item := range n.Items {
			parts = append(parts, formatTree(item))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case Null, Bool, Int, Float, String:
	}
	return fmt.Sprintf("%s%s", [...]string{"null", "b", "i", "f", "s"}[n.Kind], n.Text)
}

func TestLoad_Trees(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "null",
		"# nothing":                             "null",
		"a: 3.10\nb: 80:22\nc: off\nd: true":    "{a:f3.10 b:s80:22 c:soff d:btrue}",
		"a: '1'\nb: !!str 1\nc: 2001-01-01":     "{a:s1 b:s1 c:s2001-01-01}",
		"a: &x [1]\nb: *x":                      "{a:[i1] b:[i1]}",
		"a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}": "{a:{k:i1 l:i2} b:{l:i2 k:i3}}",
		"b: {k: 3, <<: [{k: 1, l: 1}, {l: 2}]}": "{b:{l:i1 k:i3}}",
		"a: |\n  x\n  y\n":                      "{a:sx\ny\n}",
		"\ufeffa: 1":                            "{a:i1}",
	} {
		var found Problems
		if got := formatTree(Load([]byte(text), &found)); got != want || found.Any() {
			t.Errorf("%q is %s, not %s (%v)", text, got, want, found.All())
		}
	}
	for text, want := range map[string]string{
		`{"a": 8.0, "b": [1, "x", null, true], "c": {}}`: "{a:f8.0 b:[i1 sx null btrue] c:{}}",
		`"\ud83d\ude00"`: "s😀",
	} {
		var found Problems
		if got := formatTree(LoadJSON([]byte(text), &found)); got != want || found.Any() {
			t.Errorf("%q is %s, not %s (%v)", text, got, want, found.All())
		}
	}
}

func TestLoad_Positions(t *testing.T) {
	text := "a:\n  bb: 'x''y' # c\n  ü: \"q\\\"\"\n  list: [one, {k: v}]\n  block: |\n    t\n  empty:\n"
	var found Problems
	root := Load([]byte(text), &found)
	for path, want := range map[string][3]int{
		"a.bb": {2, 7, 6}, "a.ü": {3, 6, 5}, "a.list.0": {4, 10, 3}, "a.list.1.k": {4, 19, 1},
		"a.block": {5, 10, 1}, "a.list": {4, 9, 1}, "a": {2, 3, 2},
	} {
		n, _ := root.Find(path)
		if got := [3]int{n.Line, n.Col, n.Width}; got != want || n.Path != path {
			t.Errorf("%s is at %v (path %s), want %v", path, got, n.Path, want)
		}
	}
}

// Rejected documents, with position and message.
func TestLoad_RejectsInvalidDocuments(t *testing.T) {
	for _, c := range []struct {
		text      string
		line, col int
		message   string
	}{
		{"a: 1\nb: 2\na: 3", 3, 1, "`a` is set twice"},
		{"a: {<<: 1}", 1, 9, "only mappings can be merged"},
		{"a: !x 1", 1, 4, "the tag `!x` is not supported"},
		{"a: !!binary aGk=", 1, 4, "the tag `!!binary` is not supported"},
		{"a: &a [*a]", 1, 8, "a value that contains it"},
		{"a: &a\n  <<: *a", 2, 7, "a value that contains it"},
		{"a: &a [{<<: *a}]", 1, 8, "merged into itself"},
		{"[a]: 1", 1, 1, "a key must be plain text"},
		{"a: 1\n---\nb: 1", 2, 1, "a second document"},
		{"a: b: c", 1, 5, "invalid YAML"},
		{"a: [1", 2, 1, "invalid YAML"},
		{"a: *b", 1, 4, "invalid YAML"},
		{"a: \"x", 1, 6, "invalid YAML"},
		{"a: 1\nb: x\xff", 2, 5, "not valid UTF-8"},
		{"a: 1\nb: \x01", 2, 4, "control character"},
	} {
		var found Problems
		Load([]byte(c.text), &found)
		all := found.All()
		if len(all) != 1 || all[0].Line != c.line || all[0].Col != c.col || !strings.Contains(all[0].Message, c.message) {
			t.Errorf("%q: %+v, not %q at %d:%d", c.text, all, c.message, c.line, c.col)
		}
	}
	for text, message := range map[string]string{
		`{"a": 1, "a": 2}`: "`a` is set twice",
		`{"a": 1} 2`:       "more text after the end",
		`{"a"`:             "invalid JSON",
		``:                 "invalid JSON",
	} {
		var found Problems
		LoadJSON([]byte(text), &found)
		if all := found.All(); len(all) != 1 || !strings.Contains(all[0].Message, message) {
			t.Errorf("%q: %+v, not %q", text, all, message)
		}
	}
}

// Texts that expand to large trees, and large texts, are rejected quickly.
func TestLoad_EnforcesLimits(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	merge := "a: &a {k: 1}\n"
	for c := 'b'; c <= 'z'; c++ {
		merge += fmt.Sprintf("%c: &%c {<<: [*%c, *%c, *%c, *%c]}\n", c, c, c-1, c-1, c-1, c-1)
	}
	for name, text := range map[string]string{
		"alias bomb":            bomb,
		"merge bomb":            merge,
		"10 MB":                 "a: " + strings.Repeat("x", 10<<20),
		"depth of brackets":     strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		"depth of braces":       strings.Repeat("{a: ", 10_000),
		"depth of dashes":       strings.Repeat("- ", 10_000) + "a",
		"one level too deep":    strings.Repeat("[", MaxDepth+2) + strings.Repeat("]", MaxDepth+2),
		"many values":           "[" + strings.Repeat("1,", MaxNodes) + "]",
		"many keys of one name": strings.Repeat("a: 1\n", MaxNodes),
	} {
		t.Run(name, func(t *testing.T) {
			for format, load := range map[string]func([]byte, *Problems) *Node{"YAML": Load, "JSON": LoadJSON} {
				var found Problems
				began := time.Now()
				if n := load([]byte(text), &found); n != nil || !found.Any() {
					t.Errorf("%s: accepted", format)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("%s: rejected only after %s", format, took)
				}
			}
		})
	}
	fits := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	var found Problems
	if Load([]byte(fits), &found); found.Any() {
		t.Errorf("%d levels are rejected: %v", MaxDepth, found.All())
	}
}

func TestParseInt_ParseFloat(t *testing.T) {
	node := func(text string) *Node { return Load([]byte(text), &Problems{}) }
	for text, want := range map[string]int{"8": 8, "'8'": 8, "8.0": 8, "1_000": 1000, "0x10": 16, "-3": -3, "08": 8} {
		if got, ok := ParseInt(node(text)); !ok || got != want {
			t.Errorf("%s is %d (%v), not %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"'8.5'", "8.9", "-0.5", "x", "true", "[1]", ".inf", ".nan", "1e300", "99999999999999999999", "null", "'1_0'"} {
		if got, ok := ParseInt(node(text)); ok {
			t.Errorf("%s is accepted as %d", text, got)
		}
	}
	for _, text := range []string{".inf", "-.inf", ".nan", "'nan'", "'inf'", "1e999", "true", "'0x10'", "''"} {
		if got, ok := ParseFloat(node(text)); ok {
			t.Errorf("%s is accepted as %g", text, got)
		}
	}
}

func TestReadFields_ReportsAllProblems(t *testing.T) {
	text := "nmae: x\nsoon: 1\nempty:\nother: 1\n"
	var found Problems
	root := Load([]byte(text), &found)
	read := []string{}
	field := func(f Field) Field {
		f.Read = func(n *Node) { read = append(read, n.Path) }
		return f
	}
	found.ReadFields(root, "a thing", []Field{
		field(Field{Name: "name", Required: "name: x"}), field(Field{Name: "size", Required: "size: 1"}),
		field(Field{Name: "empty"}), field(Field{Name: "other"}), {Name: "soon", Read: func(n *Node) { found.AddUnsupported(n, "soon", "wait") }},
	})
	var got []string
	for _, p := range found.All() {
		got = append(got, fmt.Sprintf("%d:%d %s (%s) %v", p.Line, p.Col, p.Message, p.Hint, p.Unsupported))
	}
	want := []string{
		"1:1 unknown field `nmae` (did you mean `name`?) false",
		"1:1 `size` is missing (add size: 1) false",
		"2:7 not supported yet: soon (wait) true",
		"3:1 `empty` has no value (add a value, or remove the line) false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"other"}, read); diff != "" {
		t.Error(diff)
	}
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"a: &x {b: [1, 'c', \"d\\n\"]}\n<<: *x\n", "- |\n  x\n- >-\n  y\n", "{\"a\": 1}", "a: !!int 3 # c", "? a\n: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, load := range []func([]byte, *Problems) *Node{Load, LoadJSON} {
			var found Problems
			if n := load(text, &found); n == nil && !found.Any() {
				t.Errorf("%q is rejected without a problem", text)
			}
		}
	})
}
