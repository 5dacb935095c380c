package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

var someSecrets = lookupIn(map[string]string{"TOKEN": "hf_1", "a-b": "dashed", "DOLLAR": "${{ secrets.TOKEN }}$$"})

// resolveEnv resolves one variable of a service.
func resolveEnv(template string) (value string, missing []string) {
	s, missing := spec.ResolveSecrets(spec.Service{Env: spec.Env{{Name: "A", Value: template}}}, someSecrets)
	return s.Env[0].Value, missing
}

func TestResolveSecrets_Values(t *testing.T) {
	for template, want := range map[string]string{
		"":                                     "",
		"plain":                                "plain",
		"${{ secrets.TOKEN }}":                 "hf_1",
		"${{secrets.TOKEN}}":                   "hf_1",
		"Bearer ${{ secrets.TOKEN }}!":         "Bearer hf_1!",
		"${{ secrets.a-b }}${{secrets.TOKEN}}": "dashedhf_1",
		"${{ secrets.DOLLAR }}":                "${{ secrets.TOKEN }}$$", // a value is not a template
		"$${{ secrets.TOKEN }}":                "${{ secrets.TOKEN }}",
		"$$${{ secrets.TOKEN }}":               "$hf_1",
		"$$$${{ secrets.TOKEN }}":              "$${{ secrets.TOKEN }}",
		"pa$$word $5 ${X} $( $$ {{ x }}":       "pa$$word $5 ${X} $( $$ {{ x }}",
		"a$ ${{ secrets.TOKEN }}":              "a$ hf_1",
		// Stored before references were checked:
		"${{ env.A }}":         "${{ env.A }}",
		"${{ secrets.TOKEN":    "${{ secrets.TOKEN",
		"${{ secrets.A.B }}":   "${{ secrets.A.B }}",
		"${{ SECRETS.TOKEN }}": "${{ SECRETS.TOKEN }}",
	} {
		if got, missing := resolveEnv(template); got != want || missing != nil {
			t.Errorf("%q is %q, not %q; missing %v", template, got, want, missing)
		}
	}
}

func TestResolveSecrets_NamesAllThatAreMissingAndChangesNoOriginal(t *testing.T) {
	s := spec.Service{
		Env:          spec.Env{{Name: "A", Value: "${{ secrets.ONE }}"}, {Name: "B", Value: "${{ secrets.TOKEN }}"}, {Name: "C", Open: true, From: "C"}},
		RegistryAuth: &spec.RegistryAuth{Username: "${{ secrets.TWO }}", Password: "${{ secrets.ONE }}"},
	}
	if diff := cmp.Diff([]string{"ONE", "TOKEN", "TWO"}, s.SecretNames()); diff != "" {
		t.Error(diff)
	}
	resolved, missing := spec.ResolveSecrets(s, someSecrets)
	if diff := cmp.Diff([]string{"ONE", "TWO"}, missing); diff != "" {
		t.Error(diff)
	}
	if resolved.Env[1].Value != "hf_1" || s.Env[1].Value != "${{ secrets.TOKEN }}" || s.RegistryAuth.Username != "${{ secrets.TWO }}" {
		t.Errorf("resolved %+v, original %+v", resolved.Env, s)
	}
}

// What is taken from the user's environment is text, whatever it contains.
func TestResolveEnv_ValuesOfTheEnvironmentAreNotTemplates(t *testing.T) {
	for _, value := range []string{"${{ secrets.TOKEN }}", "$${{ x }}", "$$$${{", "a$$b", "{{ x }}"} {
		s := spec.Service{Env: spec.Env{{Name: "A", Open: true, From: "A"}}}
		if problems := spec.ResolveEnv(&s, nil, lookupIn(map[string]string{"A": value})); problems != nil {
			t.Fatal(problems)
		}
		if problems := append(spec.Interpolate(&s, nil, lookupIn(nil)), spec.CheckReferences(&s, spec.Profile{})...); problems != nil {
			t.Errorf("%q is refused: %v", value, problems)
		}
		if resolved, _ := spec.ResolveSecrets(s, someSecrets); resolved.Env[0].Value != value {
			t.Errorf("%q becomes %q", value, resolved.Env[0].Value)
		}
	}
}

// The registry login is filled by the client, and then by the server.
func TestRegistryLogin_FilledTwice(t *testing.T) {
	environment := lookupIn(map[string]string{"PASSWORD": "x$${{ secrets.TOKEN }}", "D": "$"})
	for input, want := range map[string]string{
		"${{ secrets.TOKEN }}":                "hf_1",
		"$oauthtoken":                         "$oauthtoken",
		"$$":                                  "$",
		"$${{ secrets.TOKEN }}":               "${{ secrets.TOKEN }}",
		"$$${{ secrets.TOKEN }}":              "$hf_1",
		"${{ env.D }}${{ secrets.TOKEN }}":    "$hf_1",
		"a$b $${{ secrets.TOKEN }}":           "a$b $hf_1", // a single dollar sign disables the escape
		"${{ env.PASSWORD }}":                 "x$${{ secrets.TOKEN }}",
		"${{ env.MINE }}-${{ env.PASSWORD }}": "of hf_1-x$${{ secrets.TOKEN }}",
	} {
		s := spec.Service{Env: spec.Env{{Name: "MINE", Value: "of ${{ secrets.TOKEN }}"}}, RegistryAuth: &spec.RegistryAuth{Username: "me", Password: input}}
		if problems := append(spec.Interpolate(&s, nil, environment), spec.CheckReferences(&s, spec.Profile{})...); problems != nil {
			t.Errorf("%q is refused: %v", input, problems)
		}
		if resolved, _ := spec.ResolveSecrets(s, someSecrets); resolved.RegistryAuth.Password != want {
			t.Errorf("%q is sent as %q and becomes %q, not %q", input, s.RegistryAuth.Password, resolved.RegistryAuth.Password, want)
		}
	}
}

// The server refuses what an older client or a program sends.
func TestCheckReferences_RefusesWhatNothingReplaces(t *testing.T) {
	good := spec.Service{
		Commands: []string{"echo ${{ run.args }}"}, // escaped by the user
		Env:      spec.Env{{Name: "A", Value: "${{ secrets.A }}"}},
		Model:    &spec.Model{ChatTemplate: "${{ price }}"},
	}
	if problems := spec.CheckReferences(&good, spec.Profile{}); problems != nil {
		t.Error(problems)
	}
	bad := spec.Service{
		Commands: []string{"a", "echo ${{ secrets.A }}"}, Image: "${{ env.IMAGE }}", Setup: []string{"${{ secrets.A }}"},
		Env:          spec.Env{{Name: "A", Value: "${{ env.A }}"}, {Name: "B", Value: "${{ secrets.B"}},
		Model:        &spec.Model{Name: "${{ secrets.A }}", ChatTemplate: "${{ secrets.A }}"},
		RegistryAuth: &spec.RegistryAuth{Username: "${{ env.A }}", Password: "x"},
		Probes:       []spec.Probe{{URL: "/${{ secrets.A }}"}},
	}
	profile := spec.Profile{Params: spec.Params{Regions: []string{"${{ secrets.A }}"}}}
	var paths []string
	for _, p := range spec.CheckReferences(&bad, profile) {
		if p.Hint == "" || strings.Contains(p.Message, "B") {
			t.Errorf("it says %s; %s", p.Message, p.Hint)
		}
		paths = append(paths, p.Path)
	}
	want := []string{"image", "commands.1", "setup.0", "model.name", "model.chat_template", "registry_auth.username", "env.A", "env.B", "probes.0", "profile.regions"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}

func TestCheckSecretName(t *testing.T) {
	for name, good := range map[string]bool{"HF_TOKEN": true, "a": true, "my-key_2": true, "1": true, strings.Repeat("a", 200): true,
		"": false, "a b": false, "a.b": false, "ä": false, "a\n": false, strings.Repeat("a", 201): false} {
		if err := spec.CheckSecretName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Any text survives when it is escaped and resolved.
func FuzzEscapeReferences(f *testing.F) {
	for _, seed := range []string{"", "a", "$${{ secrets.TOKEN }}", "${{ secrets.TOKEN }}", "$$$", "$$${{{{", "{{}}$"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		template := spec.EscapeReferences(text)
		if got, missing := resolveEnv(template); got != text || missing != nil {
			t.Errorf("%q is escaped as %q and becomes %q", text, template, got)
		}
	})
}
