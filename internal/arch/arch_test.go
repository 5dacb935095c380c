// Package arch tests the structure of the product: which package imports which, and that decisions are pure.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	pathpkg "path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dstack/"

// entry is a package and what it may import of this module, or * for everything.
type entry struct{ name, imports string }

// packages lists every package and the packages of this module that it may import, without "internal/". A package may
// import only packages above it, so the order of the list is the order of the layers.
var packages = []entry{
	// Tools, independent of this product.
	{"internal/human", ""},
	{"internal/strictyaml", "human"},
	{"internal/loop", ""},
	{"internal/listen", ""},
	{"internal/sdnotify", "loop"},
	{"internal/jinja", ""},
	{"internal/jinja/jinjatest", ""},
	{"internal/page", ""},
	{"internal/gpu", "human"},

	// The configuration language and the data model.
	{"internal/spec", "gpu human strictyaml"},
	{"internal/dstack", "spec"},
	{"internal/dial", "dstack"},
	{"internal/installationca", "dstack"},
	{"internal/sshclient", "dstack loop"},
	{"internal/inventory", "gpu dstack"},
	{"internal/kubeclient", "dstack loop"},
	{"internal/kubeclient/kubetest", ""},

	{"internal/chattemplate", "dstack jinja"},

	// Decisions: pure functions (pure_test.go).
	{"internal/decide", ""},
	{"internal/decide/job", "spec dstack"},
	{"internal/decide/placement", "gpu human spec dstack"},
	{"internal/decide/autoscale", "human spec dstack"},
	{"internal/decide/volume", "human spec dstack"},
	{"internal/decide/cost", "dstack"},
	{"internal/decide/lifecycle", "human spec dstack decide/job"},
	{"internal/decide/route", "spec dstack"},
	{"internal/decide/ratelimit", "dstack"},
	{"internal/decide/access", "dstack"},
	{"internal/decide/renewal", ""},
	{"internal/decide/fleet", "human spec dstack"},
	{"internal/decide/gateway", "human spec dstack"},
	{"internal/decide/status", "dstack"},
	{"internal/decide/traffic", ""},
	{"internal/decide/host", "human spec dstack decide/placement"},
	{"internal/decide/node", "gpu spec dstack"},

	// Where a process is in the network, and how it reaches pods.
	{"internal/netplace", "decide/traffic"},
	{"internal/podpath", "dstack loop netplace decide/traffic"},

	// How a request reached the server: the URL that its client used.
	{"internal/origin", "decide/route"},

	// The API: paths, payloads, errors, client.
	{"internal/api", "human loop spec dstack decide/autoscale"},

	// Types of machines and their prices, and the clouds that rent them out.
	{"internal/catalogue", "loop gpu dstack"},
	{"internal/cloud", "dstack catalogue"},
	{"internal/cloud/aws", "gpu strictyaml dstack catalogue cloud"},
	{"internal/cloud/gcp", "human strictyaml dstack catalogue cloud"},
	{"internal/cloud/cloudtest", "dstack catalogue cloud"},
	{"internal/cloud/aws/ec2test", ""},
	{"internal/cloud/gcp/computetest", ""},

	// Engines run replicas on a machine; backends provide machines.
	{"internal/engine", "human dstack dial"},
	{"internal/engine/enginetest", "dstack dial engine"},
	{"internal/engine/docker", "dstack dial engine human"},
	{"internal/engine/process", "loop dstack dial engine"},
	{"internal/engine/kubegateway", "dstack kubeclient engine"},
	{"internal/engine/kubernetes", "human loop dstack dial decide/node kubeclient engine"},
	{"internal/backend", "dstack engine"},
	{"internal/backend/backendtest", "dstack engine backend"},
	{"internal/backend/local", "gpu human strictyaml dstack dial inventory engine backend engine/docker engine/process"},
	{"internal/backend/kubernetes", "human spec strictyaml dstack dial decide/node decide/traffic loop kubeclient netplace podpath engine backend engine/kubernetes engine/kubegateway"},
	{"internal/backend/ssh", "dstack dial inventory sshclient decide/host loop engine backend engine/docker"},
	{"internal/backend/cloud", "gpu human dstack catalogue cloud dial loop decide/placement engine engine/docker backend backend/ssh"},

	// The model hub.
	{"internal/hub", "human dstack"},
	{"internal/hub/hubtest", ""},

	// SSH for clients that attach to runs.
	{"internal/sshserver", "dstack loop"},

	// Git repositories.
	{"internal/gitrepo", "human dstack"},
	{"internal/gitrepo/gittest", ""},

	// The server.
	{"internal/server/store", "human loop spec dstack decide/autoscale decide/cost decide/fleet decide/lifecycle decide/placement decide/route decide/status decide/volume decide/ratelimit decide/gateway"},
	{"internal/server/store/storetest", "server/store"},
	{"internal/server/logs", "human dstack"},
	{"internal/server/peers", "human loop dstack server/logs server/store"},
	{"internal/server/reconcile", "human spec dstack dial decide/fleet decide/job decide/node decide/placement decide/autoscale decide/lifecycle decide/volume backend engine loop server/logs server/store decide/gateway"},
	{"internal/server/wire", "human spec dstack decide/route api server/store"},
	{"internal/server/wire/v018", "human spec dstack decide/job decide/status api server/store server/wire"},
	{"internal/server/wire/v022", "spec dstack decide/job api server/store server/wire server/wire/v018"},
	{"internal/server", "gpu human strictyaml spec dstack dial decide/cost decide/job decide/placement decide/autoscale decide/fleet decide/gateway decide/route decide/access decide/status decide/volume origin page api catalogue backend engine hub gitrepo loop sshserver server/logs server/store server/wire server/wire/v018 server/wire/v022 jinja chattemplate server/peers"},

	// Certificates of gateways.
	{"internal/certificate", "spec dstack decide/renewal loop"},
	{"internal/certificate/dnstest", ""},
	{"internal/certificate/acmetest", ""},

	// The gateway.
	{"internal/openai", "human"},
	{"internal/httpwire", ""},
	{"internal/eventloop", ""},
	{"internal/relay", "httpwire eventloop loop"},
	{"internal/frontend/extendedconnect", ""},
	{"internal/frontend", "human loop page frontend/extendedconnect"},
	{"internal/gateway", "human spec dstack dial decide/route httpwire relay origin page loop openai chattemplate decide/ratelimit"},

	{"internal/gatewaylink", "human loop dstack dial installationca sshclient decide/route decide/traffic api"},

	// The command line.
	{"internal/gitignore", ""},
	{"internal/cli", "gpu human spec dstack sshclient api loop jinja chattemplate gitignore"},
	{"cmd/dstack", "*"},
}

// source is one parsed file of the product, without tests.
type source struct {
	path string // from the repository's root
	pkg  string // the folder of the file
	set  *token.FileSet
	file *ast.File
}

func TestImports(t *testing.T) {
	files := readProduct(t)
	for _, message := range importErrors(packages, files) {
		t.Error(message)
	}
	usesOfPure := map[string]bool{}
	for _, f := range files {
		if !isPure(f.pkg) {
			continue
		}
		for _, found := range impurities(f.set, f.file) {
			t.Errorf("%s:%s; %s is pure", f.path, found, f.pkg)
		}
		for _, spec := range f.file.Imports {
			usesOfPure[importPath(spec)] = true
		}
	}
	for _, name := range pureImports {
		if !usesOfPure[name] {
			t.Errorf("no pure package imports %s: remove it from pureImports", name)
		}
	}
}

// importErrors compares the imports of files with a list of packages, in both directions: an import that is not in the
// list is an error, and so is a permission that no file needs.
func importErrors(list []entry, files []source) []string {
	var found []string
	used := map[[2]string]bool{} // by package and import
	exists := map[string]bool{}
	for _, f := range files {
		exists[f.pkg] = true
		allowed, known := allowedImports(list, f.pkg)
		if !known {
			found = append(found, fmt.Sprintf("%s: %s is not in the list of packages: add it with what it may import", f.path, f.pkg))
			continue
		}
		for _, spec := range f.file.Imports {
			imported := importPath(spec)
			if !isOurs(imported) {
				continue
			}
			name := strings.TrimPrefix(imported, module+"internal/")
			used[[2]string{f.pkg, name}] = true
			if !slices.Contains(allowed, name) && !slices.Contains(allowed, "*") {
				found = append(found, fmt.Sprintf("%s: %s may not import %s", f.path, f.pkg, strings.TrimPrefix(imported, module)))
			}
		}
	}
	for i, p := range list {
		if !exists[p.name] {
			found = append(found, fmt.Sprintf("there is no package %s: remove it from the list of packages", p.name))
			continue
		}
		for _, name := range strings.Fields(p.imports) {
			isAbove := slices.ContainsFunc(list[:i], func(above entry) bool { return above.name == "internal/"+name })
			switch {
			case name == "*":
			case !isAbove:
				found = append(found, fmt.Sprintf("%s may import %s, which is not above it in the list", p.name, name))
			case !used[[2]string{p.name, name}]:
				found = append(found, fmt.Sprintf("%s does not import %s: remove the permission", p.name, name))
			}
		}
	}
	return found
}

func allowedImports(list []entry, pkg string) (allowed []string, known bool) {
	for _, p := range list {
		if p.name == pkg {
			return strings.Fields(p.imports), true
		}
	}
	return nil, false
}

// readProduct parses every file below cmd and internal that is not a test, whatever its build constraints say.
func readProduct(t *testing.T) []source {
	root := filepath.Join("..", "..")
	var files []source
	for _, top := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			rel = filepath.ToSlash(rel)
			files = append(files, source{path: rel, pkg: pathpkg.Dir(rel), set: set, file: file})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestImportErrors(t *testing.T) {
	list := []entry{{"internal/spec", ""}, {"internal/engine", "spec"}, {"internal/gateway", ""}, {"cmd/dstack", "*"}}
	for _, c := range []struct {
		name  string
		list  []entry
		files [][2]string // package and imports
		want  string
	}{
		{name: "all as listed"},
		{name: "a package that is not listed", files: [][2]string{{"internal/util", ""}},
			want: "internal/util/a.go: internal/util is not in the list of packages: add it with what it may import"},
		{name: "an import that is not listed", files: [][2]string{{"internal/spec", `import "dstack/internal/engine"`}},
			want: "internal/spec/a.go: internal/spec may not import internal/engine"},
		{name: "an import for its effects", files: [][2]string{{"internal/gateway", `import _ "dstack/internal/spec"`}},
			want: "internal/gateway/a.go: internal/gateway may not import internal/spec"},
		{name: "an import from outside of the product", files: [][2]string{{"internal/gateway", `import "dstack/bench"`}},
			want: "internal/gateway/a.go: internal/gateway may not import bench"},
		{name: "an unused permission",
			list: []entry{
				{"internal/spec", ""}, {"internal/gateway", "spec"}, {"internal/engine", "spec"}, {"cmd/dstack", "*"},
			},
			want: "internal/gateway does not import spec: remove the permission"},
		{name: "a permission upwards",
			list: []entry{
				{"internal/engine", "spec"}, {"internal/spec", ""}, {"internal/gateway", ""}, {"cmd/dstack", "*"},
			},
			want: "internal/engine may import spec, which is not above it in the list"},
		{name: "a package that is gone", list: append(slices.Clone(list), entry{"internal/tunnel", ""}),
			want: "there is no package internal/tunnel: remove it from the list of packages"},
	} {
		if c.list == nil {
			c.list = list
		}
		product := [][2]string{
			{"internal/spec", `import "os"`},
			{"internal/engine", `import "dstack/internal/spec"`},
			{"internal/gateway", ""},
			{"cmd/dstack", `import "dstack/internal/gateway"`},
		}
		var files []source
		for _, f := range append(product, c.files...) {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, "a.go", "package a; "+f[1], parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, source{path: f[0] + "/a.go", pkg: f[0], set: set, file: file})
		}
		if got := strings.Join(importErrors(c.list, files), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
