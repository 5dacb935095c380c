package spec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestInterpolate_RunArgs(t *testing.T) {
	for input, want := range map[string]string{
		"x ${{ run.args }} y":           "x --a b y",
		"x ${{run.args}}${{ run.args}}": "x --a b--a b",
		"echo $$":                       "echo $",
		"$A $$ ${{ run.args }}":         "$A $$ --a b",
		"$$ ${{ run.args }} $$":         "$ --a b $",
		"cost $5":                       "cost $5",
		"end $":                         "end $",
		"$${{ secrets.x }}":             "${{ secrets.x }}",
		"$${{ run.args }}":              "${{ run.args }}",
		"":                              "",
	} {
		s := spec.Service{Commands: []string{input}}
		if problems := spec.Interpolate(&s, []string{"--a", "b"}, lookupIn(nil)); problems != nil {
			t.Errorf("%q: %v", input, problems)
		}
		if s.Commands[0] != want {
			t.Errorf("%q becomes %q, not %q", input, s.Commands[0], want)
		}
	}
}

func TestInterpolate_RejectsUnknownReferences(t *testing.T) {
	for input, want := range map[string]string{
		"${{ env.A }}":            "there is no value for `env.A`",
		"${{ env.A }} ${{ x.y }}": "there is no value for `env.A`, `x.y`",
		"${{ run }}":              "invalid reference: `run`",
		"${{ run.a.b }}":          "invalid reference: `run.a.b`",
		"${{ 1run.args }}":        "invalid reference: `1run.args`",
		"${{ secrets.x }}":        "`${{ secrets.x }}` cannot be used here",
		"${{ secrets.x-y }}":      "`${{ secrets.x-y }}` cannot be used here",
		"${{ run.args":            "the reference is not closed: `${{ run.args`",
	} {
		s := spec.Service{Commands: []string{"a", input}}
		problems := spec.Interpolate(&s, nil, lookupIn(map[string]string{"A": "1"}))
		if len(problems) != 1 || problems[0].Message != want || problems[0].Path != "commands.1" || problems[0].Hint == "" {
			t.Errorf("%q: %+v", input, problems)
		}
		if s.Commands[1] != input {
			t.Errorf("%q is changed to %q", input, s.Commands[1])
		}
	}
}

func TestInterpolate_RegistryAuth(t *testing.T) {
	s := spec.Service{
		Env:          spec.Env{{Name: "MINE", Value: "own"}},
		RegistryAuth: &spec.RegistryAuth{Username: "${{ env.USER_NAME }}", Password: "${{ env.MINE }}${{ secrets.p }}"},
	}
	if problems := spec.Interpolate(&s, nil, lookupIn(map[string]string{"USER_NAME": "me", "MINE": "other"})); problems != nil {
		t.Fatal(problems)
	}
	if s.RegistryAuth.Username != "me" || s.RegistryAuth.Password != "own${{ secrets.p }}" {
		t.Errorf("it is %+v", s.RegistryAuth)
	}
	bad := spec.Service{RegistryAuth: &spec.RegistryAuth{Username: "${{ env.A }}", Password: "${{ run.args }}"}}
	if problems := spec.Interpolate(&bad, nil, lookupIn(nil)); len(problems) != 2 {
		t.Errorf("want 2 problems, got %v", problems)
	}
}

func TestResolveEnv_ReportsAllMissingVariables(t *testing.T) {
	s := spec.Service{Env: spec.Env{{Name: "A", Open: true, From: "A"}, {Name: "B", Value: "file"}, {Name: "C", Open: true, From: "OTHER"}, {Name: "D", Open: true, From: "D"}}}
	problems := spec.ResolveEnv(&s, nil, lookupIn(map[string]string{"A": "1"}))
	var paths []string
	for _, p := range problems {
		paths = append(paths, p.Path+": "+p.Message)
	}
	want := []string{"env.C: environment variable `OTHER` is not set", "env.D: environment variable `D` is not set"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
	overrides := []spec.EnvVar{{Name: "B", Value: "flag"}, {Name: "C", Value: ""}, {Name: "E", Open: true, From: "E"}, {Name: "D", Value: "4"}}
	if problems := spec.ResolveEnv(&s, overrides, lookupIn(map[string]string{"A": "1", "B": "environment", "E": "5"})); problems != nil {
		t.Fatal(problems)
	}
	all := spec.Env{{Name: "A", Value: "1"}, {Name: "B", Value: "flag"}, {Name: "C"}, {Name: "D", Value: "4"}, {Name: "E", Value: "5"}}
	if diff := cmp.Diff(all, s.Env); diff != "" {
		t.Error(diff)
	}
}

func TestParseEnvVar(t *testing.T) {
	for text, want := range map[string]spec.EnvVar{
		"A=1=2": {Name: "A", Value: "1=2"},
		"A=":    {Name: "A"},
		"A":     {Name: "A", Open: true, From: "A"},
	} {
		if got, err := spec.ParseEnvVar(text); err != nil || got != want {
			t.Errorf("%q is %+v (%v)", text, got, err)
		}
	}
	for _, bad := range []string{"", "=x", "1A=2", "A B", "A-B=1"} {
		if _, err := spec.ParseEnvVar(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
