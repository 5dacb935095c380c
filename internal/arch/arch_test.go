// Package arch keeps the house in order: which room may open into which.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dstack/"

// rooms lists every package and what it may import of this module. A name
// may be used only by names below it, so the list itself shows the order.
var rooms = []struct{ name, imports string }{
	// Tools: know nothing of the rest.
	{"internal/strictyaml", ""},
	{"internal/loop", ""},
	{"internal/jinja", ""},

	// Words.
	{"internal/spec", "strictyaml"},
	{"internal/dstack", "spec"},
	{"internal/dial", "dstack"},

	{"internal/chattemplate", "dstack jinja"},

	// Decisions: no I/O, no clock, no dice.
	{"internal/decide", ""},
	{"internal/decide/job", "spec dstack"},
	{"internal/decide/placement", "spec dstack"},
	{"internal/decide/autoscale", "spec dstack"},
	{"internal/decide/lifecycle", "spec dstack"},
	{"internal/decide/route", "spec dstack"},
	{"internal/decide/access", "spec dstack"},

	// The contract between the parts.
	{"internal/api", "spec dstack decide/placement decide/autoscale decide/route"},

	// What runs replicas on a machine, and where machines come from.
	{"internal/engine", "spec dstack"},
	{"internal/engine/enginetest", "spec dstack engine"},
	{"internal/engine/docker", "spec dstack engine"},
	{"internal/engine/process", "spec dstack engine"},
	{"internal/backend", "spec dstack engine"},
	{"internal/backend/local", "spec dstack engine backend engine/docker engine/process"},

	// Where models come from.
	{"internal/hub", "dstack"},
	{"internal/hub/hubtest", ""},

	// The server.
	{"internal/server/store", "spec dstack decide/job decide/placement decide/autoscale decide/lifecycle decide/route decide/access"},
	{"internal/server/logs", "dstack"},
	{"internal/server/reconcile", "spec dstack decide/job decide/placement decide/autoscale decide/lifecycle decide/route backend engine loop server/logs server/store"},
	{"internal/server", "strictyaml spec dstack decide/job decide/placement decide/autoscale decide/lifecycle decide/route decide/access api backend engine hub loop server/logs server/store server/reconcile jinja chattemplate"},

	// The gateway.
	{"internal/openai", ""},
	{"internal/gateway", "spec dstack dial decide/route api loop openai chattemplate"},

	// The command line.
	{"internal/cli", "spec dstack api loop jinja chattemplate"},
	{"cmd/dstack", "*"},
}

// impure may not be imported by a decision, nor called in one.
var impure = []string{"context", "os", "net", "net/http", "io", "log", "log/slog", "math/rand", "math/rand/v2", "sync", "database/sql"}
var clocks = []string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "NewTicker", "AfterFunc"}

func TestRooms(t *testing.T) {
	seen := map[string]bool{}
	for i, room := range rooms {
		for _, name := range strings.Fields(room.imports) {
			above := slices.ContainsFunc(rooms[:i], func(r struct{ name, imports string }) bool { return r.name == "internal/"+name })
			if name != "*" && !above {
				t.Errorf("%s may import %s, which is not above it", room.name, name)
			}
		}
		seen[room.name] = true
	}

	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		room := filepath.ToSlash(rel)
		if room == "internal/arch" || outside(room) {
			return nil
		}
		if !seen[room] {
			t.Errorf("%s is not in the list of rooms: say what it is for and what it may import", room)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		check(t, room, path, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// outside tells what is not part of the product: examples, benchmarks and
// end-to-end tests.
func outside(room string) bool {
	for _, top := range []string{"examples", "bench", "e2e", "scripts"} {
		if room == top || strings.HasPrefix(room, top+"/") {
			return true
		}
	}
	return false
}

func check(t *testing.T, room, path string, file *ast.File) {
	i := slices.IndexFunc(rooms, func(r struct{ name, imports string }) bool { return r.name == room })
	may := strings.Fields(rooms[i].imports)
	pure := strings.HasPrefix(room, "internal/decide") || room == "internal/dstack"
	for _, spec := range file.Imports {
		name := strings.Trim(spec.Path.Value, `"`)
		own, ours := strings.CutPrefix(name, module+"internal/")
		switch {
		case ours && !slices.Contains(may, own) && !slices.Contains(may, "*"):
			t.Errorf("%s: %s may not import %s", path, room, own)
		case pure && slices.Contains(impure, name):
			t.Errorf("%s: %s is pure and may not import %s", path, room, name)
		}
	}
	if !pure {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, sel.Sel.Name) {
				t.Errorf("%s: %s is pure and may not call time.%s", path, room, sel.Sel.Name)
			}
		}
		return true
	})
}
