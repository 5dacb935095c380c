package spec_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files and the reference")

// Each invalid file in testdata is reported as in its golden file.
func TestRender_GoldenFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Ext(file) == ".txt" })
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			err := checkFile(filepath.Base(file), readFile(t, file))
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok {
				t.Fatalf("not rejected with Problems: %v", err)
			}
			got := problems.Render(false)
			golden := strings.TrimSuffix(file, ".yml") + ".txt" // .bad.txt, .bad.env.txt
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(readFile(t, golden)), got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

// A file that follows the hint parses.
func TestHints_WorkWhenFollowed(t *testing.T) {
	for _, c := range []struct{ bad, hint, followed string }{
		{"resources: {shm_size: 16GiB}", "write 16GB", "resources: {shm_size: 16GB}"},
		{"resources: {shm_size: 8GB..}", "write one size, such as 16GB", "resources: {shm_size: 16GB}"},
		{"resources: {memory: 16G}", "write 16GB for exactly 16 gigabytes, 16GB.. for at least that", "resources: {memory: 16GB..}"},
		{"replicas: 3" + scaling, "write replicas: 1..4, or remove scaling", "replicas: 1..4" + scaling},
		{"commands: serve", "write a list: [serve]", "commands: [serve]"},
		{"commands: echo a, b", "write a list, each item on its own line after `- `", "commands:\n- echo a, b"},
		{"commands: 'echo [a]'", "write a list, each item on its own line after `- `", "commands:\n- 'echo [a]'"},
		{"commands: |\n  a\n  b", "write a list, each item on its own line after `- `", "commands:\n- a\n- b"},
		{"regions: {a: b}", "write a list, each item on its own line after `- `", "regions:\n- a"},
		{"regions: [a, ]\ninstance_types: [null]", `remove it, or write ""`, `instance_types: [""]`},
		{"volumes: ['/a:/b:ro']", "write one colon and nothing after the path: my-volume:/data", "volumes: ['/a:/b']"},
		{"probes: [{type: http, foo: 1}]", "valid fields: type, url, method, headers, body, timeout, interval, ready_after, until_ready", "probes: [{type: http}]"},
		{"port:", "write port: 8000 (the port on which your service listens)", "port: 8000"},
		{"env:", "add a value, or remove the line", "auth: true"},
		{"home_dir: ''", "write a value, or remove the line", "home_dir: /root"},
		{"conda: true", "remove it; `dstack schema` lists the valid fields", "auth: true"},
		{"commands:\n- make all:", "put the command in quotes: - 'make all:'", "commands:\n- 'make all:'"},
		{"commands:\n- echo a: \"b c\"", "put the command in quotes: - 'echo a: b'", "commands:\n- 'echo a: \"b c\"'"},
	} {
		_, err := spec.ParseConfiguration("f", []byte(withRequiredFields(c.bad)))
		problems, _ := errors.AsType[spec.Problems](err)
		if len(problems) != 1 || problems[0].Hint != c.hint {
			t.Errorf("%s is rejected with\n%s", c.bad, problems.Render(false))
		}
		if _, err := spec.ParseConfiguration("f", []byte(withRequiredFields(c.followed))); err != nil {
			t.Errorf("following the hint for %s gives: %v", c.bad, err)
		}
	}
}

func TestParse_FleetAndVolumeMistakes(t *testing.T) {
	for text, message := range map[string]string{
		"type: volume\nbackend: aws\nregion: a\nvolume_id: ''\n": "either `volume_id` or `size`",
		"type: fleet\nnodes: 1\nblocks: 0\n":                     "`0` is not between 1 and 100",
		"type: fleet\nnodes: 1\nblocks: many\n":                  "`many` is not a whole number",
	} {
		if _, err := spec.ParseConfiguration("f", []byte(text)); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	for _, fine := range []string{"auto", "1", "'4'"} {
		if _, err := spec.ParseConfiguration("f", []byte("type: fleet\nnodes: 1\nblocks: "+fine+"\n")); err != nil {
			t.Error(err)
		}
	}
}

func TestParse_FleetNetworkMustBePrivate(t *testing.T) {
	for network, good := range map[string]bool{
		"10.0.0.0/8": true, "10.1.2.3/24": true, "172.31.0.0/16": true, "fd00::/8": true,
		"10.0.0.0/7": false, "172.16.0.0/8": false, "192.168.0.0/15": false, "8.8.8.0/24": false,
	} {
		_, err := spec.ParseConfiguration("f", []byte("type: fleet\nssh_config: {hosts: [a], network: '"+network+"'}\n"))
		if (err == nil) != good {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// checkFile returns all problems that a user who applies the file would see.
func checkFile(name string, text []byte) error {
	if strings.HasSuffix(name, ".env") {
		_, err := spec.ParseEnvFile(name, text)
		return err
	}
	if strings.HasPrefix(name, "profiles") {
		_, err := spec.ParseProfiles(name, text)
		return err
	}
	c, err := spec.ParseConfiguration(name, text)
	if err != nil {
		return err
	}
	problems := append(c.Unsupported(), spec.FindBadReferences(name, text)...)
	problems = append(problems, spec.FindDialect(text).Notes()...)
	if f, ok := c.(*spec.Fleet); ok {
		problems = append(problems, f.FindNotes(spec.WrittenFields(text))...)
	}
	if s, ok := c.(*spec.Service); ok {
		none := func(string) (string, bool) { return "", false }
		problems = append(problems, s.FindNotes()...)
		problems = append(problems, spec.ResolveEnv(s, nil, none)...)
		problems = append(problems, spec.Interpolate(s, nil, none).NotIn(problems)...)
		problems = append(problems, s.NameProblems()...)
	}
	return spec.Locate(name, text, problems)
}
