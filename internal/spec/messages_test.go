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

// untestableMessages are messages that no file in testdata can cause, with the
// reason.
var untestableMessages = map[string]string{
	"invalid JSON: %s":                           "only the API parses JSON",
	"the configuration is larger than %s":        "only the API parses JSON",
	"cannot start the YAML parser: %s":           "cannot be caused by a file",
	"type %s as a fleet":                         "only the API can request a fleet of another type",
	"type %s as a run":                           "only the API can request a run of another type",
	"`%s` is not a valid name for a secret":      "names of secrets are on the command line",
	"the file is larger than %s":                 "tested in TestParse_RejectsOversizedFilesQuickly, since the files are large",
	"this is not the configuration of a volume":  "only the API can create a volume from something else",
	"this is not the configuration of a gateway": "only the API can create a gateway from something else",
}

// Every message about a file appears in a golden file in testdata, so that
// reviewers see it together with the file.
func TestMessages_AllAppearInTestdata(t *testing.T) {
	var said strings.Builder
	golden, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range golden {
		said.Write(readFile(t, file))
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
			for place, message := range findMessages(t, file) {
				if untestableMessages[message] == "" && !compileMessage(message).MatchString(text) {
					t.Errorf("%s: no golden file in testdata contains %q", place, message)
				}
			}
		}
	}
}

// reportingCalls maps the functions that report a problem to the index of the
// argument with the message.
var reportingCalls = map[string]int{"Add": 1, "addAt": 3, "fail": 1, "addUnsupportedUse": 1, "AddUnsupported": 1, "unsupportedType": 0, "addProblem": 4}

// findMessages returns the messages in a Go file by their position. In messages
// that are composed, %s stands for the variable parts.
func findMessages(t *testing.T, file string) map[string]string {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	take := func(n ast.Expr) {
		if message := literalText(n); strings.Trim(message, "%s ") != "" {
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
			if i, says := reportingCalls[name]; says && i < len(n.Args) {
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

// literalText returns the text of an expression, with %s for parts that are not
// literals.
func literalText(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(n.Value); err == nil {
			return text
		}
	case *ast.BinaryExpr:
		return literalText(n.X) + literalText(n.Y)
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			return literalText(n.Args[0])
		}
	}
	return "%s"
}

var formatVerb = regexp.MustCompile(`%[.0-9]*[a-z]`)

// compileMessage returns a pattern that matches the message with any values.
func compileMessage(message string) *regexp.Regexp {
	parts := formatVerb.Split(message, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, ".*"))
}
