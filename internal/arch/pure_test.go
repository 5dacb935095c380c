package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// pureImports are the packages of the standard library that a pure package may import. A pure package decides from its
// arguments alone: it does no I/O, reads no clock, draws no random numbers and starts no goroutines.
var pureImports = []string{
	"cmp",
	"crypto/sha256",
	"crypto/subtle",
	"encoding/base64",
	"encoding/hex",
	"encoding/json",
	"errors",
	"fmt",
	"maps",
	"math",
	"net/netip",
	"path",
	"slices",
	"strconv",
	"strings",
	"time",
	"unicode",
}

// impureNames are the identifiers of pureImports that a pure package may not use.
var impureNames = map[string][]string{
	"fmt": {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
	"time": {
		"After", "AfterFunc", "LoadLocation", "Local", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until",
	},
}

// isPure reports whether the rules of this file apply to a package, named by its folder.
func isPure(pkg string) bool {
	return pkg == "internal/gpu" || pkg == "internal/dstack" || pkg == "internal/inventory" || pkg == "internal/decide" || strings.HasPrefix(pkg, "internal/decide/")
}

// impurities returns what a file of a pure package may not contain, each as line: message. Imports of this module are
// not its concern; importErrors checks them.
func impurities(set *token.FileSet, file *ast.File) []string {
	var found []string
	report := func(n ast.Node, format string, args ...any) {
		found = append(found, fmt.Sprintf("%d: ", set.Position(n.Pos()).Line)+fmt.Sprintf(format, args...))
	}
	imported := map[string]string{} // path by the name that the file uses for it
	for _, spec := range file.Imports {
		importPath := importPath(spec)
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		switch {
		case name == ".":
			report(spec, "imports %s into its own scope, which hides what it uses", importPath)
		case !isOurs(importPath) && !slices.Contains(pureImports, importPath):
			report(spec, "imports %s, which is not in pureImports", importPath)
		}
		imported[name] = importPath
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && slices.Contains(impureNames[imported[x.Name]], n.Sel.Name) {
				report(n, "uses %s.%s", imported[x.Name], n.Sel.Name)
			}
		case *ast.GoStmt:
			report(n, "starts a goroutine")
		case *ast.SelectStmt:
			report(n, "has a select statement")
		case *ast.ChanType:
			report(n, "has a channel type")
		case *ast.SendStmt:
			report(n, "sends on a channel")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				report(n, "receives from a channel")
			}
		}
		return true
	})
	return found
}

func importPath(spec *ast.ImportSpec) string { return strings.Trim(spec.Path.Value, `"`+"`") }

func isOurs(importPath string) bool { return strings.HasPrefix(importPath, module) }

func TestImpurities(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"nothing to refuse", `import ("strings"; "time"; "dstack/internal/spec"); var _ = strings.ToLower("A"); var d = 2 * time.Second; var _ spec.Service`, ""},
		{"a method that is called Now", `type clock struct{}; func (clock) Now() {}; func f(c clock) { c.Now() }`, ""},
		{"os/exec", `import "os/exec"; var _ = exec.Command`, "1: imports os/exec, which is not in pureImports"},
		{"an import for its effects", `import _ "os"`, "1: imports os, which is not in pureImports"},
		{"another module", `import "github.com/google/uuid"; var _ = uuid.New`, "1: imports github.com/google/uuid, which is not in pureImports"},
		{"an import in back quotes", "import `net`; var _ net.Conn", "1: imports net, which is not in pureImports"},
		{"the clock", `import "time"; func f() any { return time.Now() }`, "1: uses time.Now"},
		{"the clock under another name", `import t "time"; func f() any { return t.Now() }`, "1: uses time.Now"},
		{"the clock as a value", `import "time"; var now = time.Now`, "1: uses time.Now"},
		{"a timer", `import t "time"; func f() { t.Sleep(1) }`, "1: uses time.Sleep"},
		{"a dot import", `import . "time"; func f() any { return Now() }`, "1: imports time into its own scope, which hides what it uses"},
		{"standard output", `import "fmt"; func f() { fmt.Println() }`, "1: uses fmt.Println"},
		{"a goroutine", `func f() { go f() }`, "1: starts a goroutine"},
		{"a select statement", `func f() { select {} }`, "1: has a select statement"},
		{"a channel type", `type c chan int`, "1: has a channel type"},
		{"a parameter that is a channel", `func f(<-chan int) {}`, "1: has a channel type"},
		{"a new channel", `var _ = make(chan int)`, "1: has a channel type"},
		{"a send", `func f() { c <- 1 }`, "1: sends on a channel"},
		{"a receive", `func f() { <-c }`, "1: receives from a channel"},
		{"two of them", "import \"os\"\nfunc f() { go os.Exit(1) }", "1: imports os, which is not in pureImports; 2: starts a goroutine"},
	} {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, "a.go", "package a; "+c.source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := strings.Join(impurities(set, file), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
