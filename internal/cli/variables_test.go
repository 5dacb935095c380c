package cli

import (
	"maps"
	"strings"
	"testing"
)

func TestEnvFile_Precedence(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		flags []string
		want  map[string]string // the environment that is sent
		shown string
	}{
		{"none", nil, nil, map[string]string{"GREETING": "hello", "MODE": "plain"}, "GREETING (from your environment), MODE\n"},
		{"a file over the configuration and the environment", map[string]string{".env": "GREETING=hi # there\nMODE='fan cy'\n"}, []string{"--env-file", ".env"},
			map[string]string{"GREETING": "hi", "MODE": "fan cy"}, "GREETING (from .env), MODE (from .env)\n"},
		{"the later file", map[string]string{"a.env": "GREETING=a\nMODE=a", "b.env": "MODE=b"}, []string{"--env-file", "a.env", "--env-file", "b.env"},
			map[string]string{"GREETING": "a", "MODE": "b"}, "GREETING (from a.env), MODE (from b.env)\n"},
		{"-e over files, wherever it stands", map[string]string{"a.env": "MODE=a\nGREETING=a"}, []string{"-e", "MODE=flag", "--env-file", "a.env"},
			map[string]string{"GREETING": "a", "MODE": "flag"}, "GREETING (from a.env), MODE (from -e)\n"},
		{"the later -e", nil, []string{"-e", "MODE=1", "-e", "MODE=2"}, map[string]string{"GREETING": "hello", "MODE": "2"}, "MODE (from -e)\n"},
		{"a file adds", map[string]string{"x/a.env": "MORE=\"$HOME\\n\""}, []string{"--env-file", "x/a.env"},
			map[string]string{"GREETING": "hello", "MODE": "plain", "MORE": "$HOME\n"}, "MODE, MORE (from x/a.env)\n"},
		{"a name alone in a file", map[string]string{"a.env": "export MODE\n"}, []string{"--env-file", "a.env"},
			map[string]string{"GREETING": "hello", "MODE": "mine"}, "MODE (from your environment)\n"},
		{"an unnamed .env is not read", map[string]string{".env": "GREETING=hi\nbad line"}, nil, map[string]string{"GREETING": "hello", "MODE": "plain"}, "GREETING (from your environment), MODE\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.env["MODE"] = "mine"
			for name, text := range c.files {
				u.writeFile(name, text)
			}
			got := u.run(append(strings.Fields(applyDetached), c.flags...)...)
			got.check(t, ExitDone, nil, []string{c.shown})
			env := map[string]string{}
			for _, v := range f.applied[0].RunSpec.Configuration.Env {
				env[v.Name] = v.Value
			}
			if !maps.Equal(env, c.want) {
				t.Errorf("sent %q, want %q", env, c.want)
			}
			for _, value := range []string{"hello", "fan cy", "$HOME"} {
				if strings.Contains(got.err, value) {
					t.Errorf("a value was printed:\n%s", got.err)
				}
			}
		})
	}
}

func TestEnvFile_ReportsProblems(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		flags []string
		says  []string
	}{
		{"a bad file", map[string]string{"a.env": "A=1\nA=secret\n\nB: secret"}, []string{"--env-file", "a.env"},
			[]string{"a.env:2:1: `A` is set twice", "it is already set on line 1; remove one of them", "a.env:4:2: there is a colon", "write NAME=value", "2 problems in a.env\n"}},
		{"two bad files", map[string]string{"a.env": "1=secret", "b.env": "B='secret"}, []string{"--env-file", "a.env", "--env-file", "b.env"},
			[]string{"1 problem in a.env\n\nb.env:1:3: this quote is not closed", "1 problem in b.env\n"}},
		{"no such file", nil, []string{"--env-file", "a.env"}, []string{"error: --env-file: cannot read a.env: no such file or directory\n  try   check the path"}},
		{"a folder", map[string]string{"a.env/x": ""}, []string{"--env-file", "a.env"}, []string{"cannot read a.env: is a directory"}},
		{"no name of a file", nil, []string{"--env-file", ""}, []string{"error: --env-file needs a value"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			for name, text := range c.files {
				u.writeFile(name, text)
			}
			if output := u.applyRefused(f, c.says, c.flags...); strings.Contains(output, "secret") {
				t.Errorf("a value was printed:\n%s", output)
			}
		})
	}
}

func TestEnvFile_MissingVariables(t *testing.T) {
	for _, c := range []struct {
		name  string
		env   string // the content of .env
		flags []string
		says  []string
	}{
		{"all at once", "", nil, []string{"7:5: environment variable `FIRST` is not set", "export FIRST=…, or apply with -e FIRST=…", "8:5: environment variable `SECOND` is not set", "2 problems in service.dstack.yml"}},
		{"one of them is in .env", "SECOND=secret\n", nil, []string{"export FIRST=…, or apply with -e FIRST=…", "`SECOND` is not set", "  apply with --env-file .env\n"}},
		{"in .env under its name alone", "SECOND\n", nil, []string{"export SECOND=…, or apply with -e SECOND=…"}},
		{"in a .env that is wrong", "SECOND=secret\n!\n", nil, []string{"export SECOND=…, or apply with -e SECOND=…"}},
		{"asked for by a file", "# mine\nFIRST=secret\nTHIRD # secret\n", []string{"--env-file", ".env"},
			[]string{"service.dstack.yml:8:5: environment variable `SECOND`", "1 problem in service.dstack.yml\n\n.env:3:1: environment variable `THIRD` is not set\n   3 | THIRD…\n     | ^^^^^\n", "1 problem in .env"}},
		{"asked for by -e", "", []string{"-e", "FIRST=secret", "-e", "SECOND=secret", "-e", "THIRD"}, []string{"error: --env: environment variable `THIRD` is not set\n  try   run export THIRD=…"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newApplyTest(t, readyView)
			u.writeFile("service.dstack.yml", "type: service\nname: web\nport: 8000\ncommands:\n  - serve\nenv:\n  - FIRST\n  - SECOND\n  - MODE=plain\n")
			if c.env != "" {
				u.writeFile(".env", c.env)
			}
			if output := u.applyRefused(f, c.says, c.flags...); strings.Contains(output, "secret") {
				t.Errorf("a value was printed:\n%s", output)
			}
		})
	}
}
