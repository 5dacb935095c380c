package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/backend"
	"dstack/internal/backend/local"
	"dstack/internal/server"
	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

// readConfig reads a config.yml with the backends of this program.
func readConfig(t *testing.T, text string) (server.Config, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, server.ConfigName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, _, err := server.ReadConfig(dir, "main", newConfigFormat(backendTypes))
	return config, err
}

func TestConfig_FirstFile(t *testing.T) {
	config, created, err := server.ReadConfig(t.TempDir(), "main", newConfigFormat(backendTypes))
	if err != nil || !created {
		t.Fatal(created, err)
	}
	want := server.Config{Projects: []server.ProjectConfig{{Name: "main", Backends: []server.BackendConfig{
		{Type: "local", Settings: local.Settings{Engine: "auto"}},
	}}}}
	if diff := cmp.Diff(want, config); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_LocalBackends(t *testing.T) {
	config, err := readConfig(t, `projects:
- name: main
  backends:
  - type: local
  - type: local
    engine: process
- name: team
  backends: [{type: local, engine: process}]
`)
	if err != nil {
		t.Fatal(err)
	}
	auto := server.BackendConfig{Type: "local", Settings: local.Settings{Engine: "auto"}}
	process := server.BackendConfig{Type: "local", Settings: local.Settings{Engine: "process"}}
	want := server.Config{Projects: []server.ProjectConfig{
		{Name: "main", Backends: []server.BackendConfig{auto, process}},
		{Name: "team", Backends: []server.BackendConfig{process}},
	}}
	if diff := cmp.Diff(want, config); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_Problems(t *testing.T) {
	_, err := readConfig(t, `projects:
- name: main
  backends:
  - type: podman
  - type: local
    engine: dockr
  - type: local
    engin: docker
`)
	problems, ok := errors.AsType[spec.Problems](err)
	if !ok {
		t.Fatal(err)
	}
	report := problems.Render(false)
	for _, want := range []string{
		"config.yml:4:11: `podman` is not a type of backend\n   3 |   backends:\n   4 |   - type: podman\n" +
			"     |           ^^^^^^\n  supported types: aws, gcp, kubernetes, local\n",
		"config.yml:6:13: `dockr` is not a valid value\n",
		"  did you mean `docker`?\n",
		"config.yml:8:5: unknown field `engin`\n",
		"  did you mean `engine`?\n",
		"3 problems in ",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is missing in:\n%s", want, report)
		}
	}
}

// rack is a backend whose settings are its name.
type rack struct {
	backend.Backend
	name string
}

// newRackTypes returns a type of backend with the key "rack-NAME". The name auto is another name for one. open counts
// the backends of each key that are open.
func newRackTypes(open map[string]int) map[string]backendType {
	read := func(problems *strictyaml.Problems, block *strictyaml.Node) string {
		name := "auto"
		problems.ReadFields(block, "a rack", []strictyaml.Field{{Name: "name", Read: func(n *strictyaml.Node) { name = n.Text }}})
		return name
	}
	openRack := func(_ context.Context, _ *daemon, name string) (openedBackend, error) {
		if name == "broken" {
			return openedBackend{}, errors.New("the rack is broken")
		}
		if name == "auto" {
			name = "one"
		}
		key := "rack-" + name
		open[key]++
		return openedBackend{Backend: rack{name: name}, key: key, close: func() error { open[key]--; return nil }}, nil
	}
	return map[string]backendType{"rack": newBackendType(read, openRack, nil)}
}

func TestOpenBackends_OneForEachKey(t *testing.T) {
	open := map[string]int{}
	types := newRackTypes(open)
	dir := t.TempDir()
	text := `projects:
- name: main
  backends: [{type: rack}, {type: rack, name: one}, {type: rack, name: two}]
- name: team
  backends: [{type: rack, name: two}]
- name: empty
`
	if err := os.WriteFile(filepath.Join(dir, server.ConfigName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, _, err := server.ReadConfig(dir, "main", newConfigFormat(types))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{backends: backend.NewSet()}
	if err := d.openBackends(t.Context(), config, types); err != nil {
		t.Fatal(err)
	}
	for project, want := range map[string][]string{"main": {"rack-one", "rack-two"}, "team": {"rack-two"}, "empty": nil, "created-later": {"rack-one", "rack-two"}} {
		if got := d.backends.Of(project); !slices.Equal(got, want) {
			t.Errorf("the project %s has %v, want %v", project, got, want)
		}
	}
	if len(d.opened) != 2 || open["rack-one"] != 1 || open["rack-two"] != 1 {
		t.Errorf("%d backends are opened; %v", len(d.opened), open)
	}
	if got, err := d.backends.Get("rack-two"); err != nil || got != (rack{name: "two"}) {
		t.Errorf("the backend of rack-two is %v, %v", got, err)
	}
}

func TestOpenBackends_AnErrorLeavesTheOthersToClose(t *testing.T) {
	open := map[string]int{}
	d := &daemon{backends: backend.NewSet()}
	err := d.openBackends(t.Context(), server.Config{Projects: []server.ProjectConfig{{Name: "main", Backends: []server.BackendConfig{
		{Type: "rack", Settings: "one"}, {Type: "rack", Settings: "broken"},
	}}}}, newRackTypes(open))
	if err == nil || len(d.opened) != 1 || open["rack-one"] != 1 {
		t.Errorf("%v; %d backends are opened; %v", err, len(d.opened), open)
	}
}
