package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

// testFormat has two types of backend: rack, with the field rows, and shed, without fields.
var testFormat = ConfigFormat{
	Backends: map[string]BackendType{
		"rack": {Read: func(problems *strictyaml.Problems, block *strictyaml.Node) any {
			rows := 1
			problems.ReadFields(block, "a rack", []strictyaml.Field{
				{Name: "rows", Read: func(n *strictyaml.Node) { rows, _ = problems.ReadInt(n, 1, 9) }},
			})
			return rows
		}},
		"shed": {Read: func(problems *strictyaml.Problems, block *strictyaml.Node) any {
			problems.ReadFields(block, "a shed", nil)
			return nil
		}},
	},
	FirstBackend: "# One rack\n- type: rack\n  rows: 2\n",
}

func TestReadConfig_CreatesAFileAndReadsItAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	want := Config{Projects: []ProjectConfig{{Name: "main", Backends: []BackendConfig{{Type: "rack", Settings: 2}}}}}
	for _, first := range []bool{true, false} {
		got, created, err := ReadConfig(dir, "main", testFormat)
		if err != nil || created != first {
			t.Fatalf("created: %v, error: %v", created, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	info, err := os.Stat(filepath.Join(dir, ConfigName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".config-*")); len(left) > 0 {
		t.Errorf("temporary files that were not removed: %v", left)
	}
}

func TestParseConfig_Backends(t *testing.T) {
	text := `projects:
- name: a
  backends:
  - type: rack
  - {rows: 2, type: rack}
  - type: shed
- name: b
  backends: [{type: rack, rows: 2}]
- name: c
  backends:
`
	got, err := parseConfig("c.yml", []byte(text), testFormat)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Projects: []ProjectConfig{
		{Name: "a", Backends: []BackendConfig{{Type: "rack", Settings: 1}, {Type: "rack", Settings: 2}, {Type: "shed"}}},
		{Name: "b", Backends: []BackendConfig{{Type: "rack", Settings: 2}}},
		{Name: "c"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseConfig_ProblemsHaveTheirLine(t *testing.T) {
	for _, c := range []struct{ name, text, want, hint string }{
		{"an empty file", "", "c.yml:1:1: the file is empty",
			"write `projects: [{name: main}]`, or remove the file: the next start creates a new one"},
		{"only a comment", "# nothing\n", "c.yml:1:1: the file is empty", ""},
		{"no projects", "project: []\n", "c.yml:1:1: unknown field `project`", ""},
		{"not a list", "projects: main\n", "c.yml:1:11: `projects` must be a list, not `main`", "write `projects: [{name: main}]`"},
		{"a project that is not in a list", "projects: {name: team}\n", "c.yml:1:11: `projects` must be a list", "write `projects: [{name: main}]`"},
		{"no value", "projects:\n", "c.yml:1:1: ", ""},
		{"a project that is not a mapping", "projects: [team]\n", "c.yml:1:12: a project must be a mapping", ""},
		{"a wrong value in a backend's block", "projects:\n- name: a\n  backends:\n  - type: rack\n    rows: 12\n",
			"c.yml:5:11: `12` is not between 1 and 9", ""},
		{"an unknown field in a backend's block", "projects:\n- name: a\n  backends:\n  - type: rack\n    row: 2\n",
			"c.yml:5:5: unknown field `row`", "did you mean `rows`?"},
		{"a field of another type", "projects:\n- name: a\n  backends:\n  - type: shed\n    rows: 2\n",
			"c.yml:5:5: unknown field `rows`", ""},
		{"an unknown type", "projects:\n- name: a\n  backends:\n  - type: rak\n    rows: 2\n",
			"c.yml:4:11: `rak` is not a type of backend", "supported types: rack, shed"},
		{"a type of the original dstack", "projects:\n- name: a\n  backends:\n  - type: aws\n    creds: {type: default}\n",
			"c.yml:4:11: not supported yet: backends of type aws", "supported types: rack, shed"},
		{"no type", "projects:\n- name: a\n  backends:\n  - rows: 2\n",
			"c.yml:4:5: `projects.0.backends.0.type` is missing", "add type: rack or shed"},
		{"a misspelled type field", "projects:\n- name: a\n  backends:\n  - typ: rack\n",
			"c.yml:4:5: unknown field `typ`", "did you mean `type`?"},
		{"a type that is not text", "projects:\n- name: a\n  backends:\n  - type: [rack]\n",
			"c.yml:4:11: this must be text, not a list", ""},
		{"a backend that is not a mapping", "projects:\n- name: a\n  backends:\n  - rack\n",
			"c.yml:4:5: a backend must be a mapping", ""},
		{"a project twice", "projects:\n- name: a\n- name: A\n", "c.yml:3:9: the project \"A\" is configured twice", ""},
		{"an invalid name", "projects:\n- name: a/b\n", `c.yml:2:9: "a/b" is not a valid project name`, ""},
		{"no name", "projects:\n- backends: []\n", "`projects.0.name` is missing", ""},
		{"a backend twice", "projects:\n- name: a\n  backends: [{type: rack}, {type: rack, rows: 1}]\n",
			"c.yml:3:28: this backend is configured twice", ""},
		{"broken YAML", "projects: [\n", "c.yml:", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("c.yml", []byte(c.text), testFormat)
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok || len(problems) != 1 || !strings.Contains(problems[0].Place()+problems[0].Message, c.want) {
				t.Fatalf("the error is %v, want one problem: %s", err, c.want)
			}
			if c.hint != "" && problems[0].Hint != c.hint {
				t.Errorf("the hint is %q, want %q", problems[0].Hint, c.hint)
			}
		})
	}
}

func TestParseConfig_AllProblemsAtOnce(t *testing.T) {
	text := "projects:\n- name: a b\n  backends:\n  - type: gcp\n  - type: rack\n    rows: 0\n    row: 1\n  - rows: 2\n"
	_, err := parseConfig("c.yml", []byte(text), testFormat)
	problems, _ := errors.AsType[spec.Problems](err)
	if len(problems) != 5 || problems[0].Source != "- name: a b" || problems[0].Before != "projects:" {
		t.Errorf("%d problems: %v", len(problems), err)
	}
}
