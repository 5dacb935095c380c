package spec_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// unseen are messages that no file can bring about, each with its reason.
var unseen = map[string]string{
	"invalid JSON: %s":                       "only the wire is JSON",
	"the configuration is larger than %d KB": "only the wire is JSON",
	"cannot start the YAML parser: %s":       "nobody can bring it about",
	"type %s as a run":                       "only the wire asks for a run of another type",
	"the file is larger than %d KB":          "TestBoundsHold makes such files; they would be large here",
}

// Every message that can be said of a file is said of one in testdata, so
// that its words are read by somebody who sees the file beside them.
func TestEveryMessageIsSaidOfAFileInTestdata(t *testing.T) {
	var said strings.Builder
	golden, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range golden {
		said.Write(read(t, file))
	}
	text := said.String()
	for _, folder := range []string{".", "../strictyaml"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for place, message := range messagesIn(t, file) {
				if unseen[message] == "" && !asPattern(message).MatchString(text) {
					t.Errorf("%s: no file in testdata is refused with %q", place, message)
				}
			}
		}
	}
}

// sayers are the calls that report a problem, and which argument is the
// message.
var sayers = map[string]int{"Add": 1, "addAt": 3, "fail": 1, "addUnsupportedUse": 1, "AddUnsupported": 1, "unsupportedType": 0, "addProblem": 4}

// messagesIn finds the messages of a file, by their place. What is put
// together stands with its literal parts and %s between them.
func messagesIn(t *testing.T, file string) map[string]string {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	take := func(n ast.Expr) {
		if message := literal(n); strings.Trim(message, "%s ") != "" {
			found[set.Position(n.Pos()).String()] = message
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.SelectorExpr:
				name = f.Sel.Name
			case *ast.Ident:
				name = f.Name
			}
			if i, says := sayers[name]; says && i < len(n.Args) {
				take(n.Args[i])
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Message" {
				take(n.Value)
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if i < len(n.Values) && (name.Name == "messageTooDeep" || name.Name == "messageTooMany") {
					take(n.Values[i])
				}
			}
		}
		return true
	})
	return found
}

// literal is the text of an expression; what is no literal is %s.
func literal(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(n.Value); err == nil {
			return text
		}
	case *ast.BinaryExpr:
		return literal(n.X) + literal(n.Y)
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			return literal(n.Args[0])
		}
	}
	return "%s"
}

var verb = regexp.MustCompile(`%[.0-9]*[a-z]`)

func asPattern(message string) *regexp.Regexp {
	parts := verb.Split(message, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, ".*"))
}
