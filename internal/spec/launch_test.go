package spec_test

import (
	"errors"
	"strings"
	"testing"

	"dstack/internal/spec"
)

// Linux takes 131,071 bytes in one NAME=value. The test of the engines' contract runs
// commands and variables of the longest lengths that are accepted here.
func TestLaunchProblems_NameWhatIsTooLong(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	commands := func(all ...string) spec.Service { return spec.Service{Commands: all} }
	env := func(vars ...spec.EnvVar) spec.Service { return spec.Service{Commands: []string{"a"}, Env: vars} }
	var many []spec.EnvVar
	for _, name := range []string{"A", "B", "C", "D", "E", "F", "G", "H", "I"} {
		many = append(many, spec.EnvVar{Name: name, Value: text(120_000)})
	}
	for _, c := range []struct {
		name    string
		service spec.Service
		want    map[string]string // path → a part of the message
	}{
		{"the longest command", commands(text(130_048)), nil},
		{"a longer command", commands("a", text(130_049)), map[string]string{"commands.1": "`commands[1]` has 130049 bytes, the limit for all commands is 130048"}},
		{"two long commands", commands(text(70_000), text(70_000)), map[string]string{"commands": "a script of 140004 bytes"}},
		{"quotes count", commands("#"+strings.Repeat("'", 40_000), "a"), map[string]string{"commands": "a script of 160"}},
		{"the longest variable", env(spec.EnvVar{Name: "AB", Value: text(131_068)}), nil},
		{"longer variables", env(spec.EnvVar{Name: "AB", Value: text(131_069)}, spec.EnvVar{Name: "C", Value: text(200_000)}),
			map[string]string{"env.AB": "`AB` has 131072 bytes", "env.C": "`C` has 200002 bytes"}},
		{"many variables", env(many...), map[string]string{"env": "`env` and `commands` have 1080"}},
		{"a long entrypoint", spec.Service{Entrypoint: spec.Text(text(140_000))}, map[string]string{"entrypoint": "has 140000 bytes"}},
		{"long arguments", spec.Service{Entrypoint: "serve", Commands: []string{text(70_000), text(70_000)}},
			map[string]string{"commands": "a script of 140013 bytes"}},
		{"empty commands", commands("", "a", " \n\t"), map[string]string{"commands.0": "`commands[0]`: the command is empty", "commands.2": "`commands[2]`"}},
		{"empty arguments", spec.Service{Entrypoint: "serve", Commands: []string{""}}, nil},
		{"a comment", commands("# nothing"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := c.service.LaunchProblems()
			if len(problems) != len(c.want) {
				t.Errorf("problems: %+.300v", problems)
			}
			for _, p := range problems {
				if want := c.want[p.Path]; want == "" || !strings.Contains(p.Message, want) || p.Hint == "" {
					t.Errorf("%s: %s\n%s", p.Path, p.Message, p.Hint)
				}
			}
		})
	}
}

// Problems have the position of what is too long, and stored configurations stay readable.
func TestLaunchProblems_OnlyOfFiles(t *testing.T) {
	file := "type: service\nport: 80\nenv:\n  - A=" + strings.Repeat("x", 140_000) + "\ncommands: [a, '']\n"
	_, err := spec.ParseService("f.yml", []byte(file))
	problems, _ := errors.AsType[spec.Problems](err)
	if len(problems) != 2 || problems[0].Line != 4 || problems[1].Line != 5 {
		t.Fatalf("problems: %.500v", err)
	}
	if strings.Contains(problems[0].Source, "xxx") {
		t.Error("the value is shown")
	}
	var stored spec.Service
	if err := stored.UnmarshalJSON([]byte(`{"type": "service", "port": 80, "commands": ["a", ""]}`)); err != nil {
		t.Error(err)
	}
}
