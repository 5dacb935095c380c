package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestReadConfig_TheFirstOneIsWrittenAndReadAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	want := Config{Projects: []ProjectConfig{{Name: "main", Backends: []BackendConfig{{Type: "local", Engine: "auto"}}}}}
	for _, first := range []bool{true, false} {
		got, made, err := ReadConfig(dir, "main")
		if err != nil || made != first {
			t.Fatalf("made %v, %v", made, err)
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
		t.Errorf("left behind: %v", left)
	}
}

func TestParseConfig_WhatIsWrongHasItsLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an empty file", "", "the file is empty"},
		{"only a comment", "# nothing\n", "the file is empty"},
		{"no projects", "project: []\n", "c.yml:1:1: unknown field `project`"},
		{"not a list", "projects: main\n", "c.yml:1:11: "},
		{"a wrong engine", "projects:\n- name: a\n  backends:\n  - type: local\n    engine: dockr\n", "c.yml:5:13: "},
		{"an unknown key", "projects:\n- name: a\n  backends:\n  - type: local\n    engin: docker\n", "c.yml:5:5: unknown field `engin`"},
		{"a backend that comes later", "projects:\n- name: a\n  backends:\n  - type: aws\n    creds: {type: default}\n", "c.yml:4:11: not supported yet: backends of type aws"},
		{"a project twice", "projects:\n- name: a\n- name: A\n", "c.yml:3:9: the project \"A\" is there twice"},
		{"a bad name", "projects:\n- name: a/b\n", `c.yml:2:9: a project cannot be called "a/b"`},
		{"no name", "projects:\n- backends: []\n", "`projects.0.name` is missing"},
		{"a backend twice", "projects:\n- name: a\n  backends: [{type: local}, {type: local, engine: auto}]\n", "c.yml:3:29: this backend is there twice"},
		{"broken YAML", "projects: [\n", "c.yml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("c.yml", []byte(c.text))
			if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if _, ok := errors.AsType[spec.Problems](err); !ok {
				t.Errorf("the problems are not in it: %#v", err)
			}
		})
	}
}

func TestParseConfig_AllProblemsAtOnce(t *testing.T) {
	_, err := parseConfig("c.yml", []byte("projects:\n- name: a b\n  backends:\n  - type: gcp\n  - engine: x\n"))
	problems, _ := errors.AsType[spec.Problems](err)
	if len(problems) != 4 || problems[0].Source != "- name: a b" || problems[0].Before != "projects:" {
		t.Errorf("%d problems: %v", len(problems), err)
	}
}
