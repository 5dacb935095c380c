package job_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Two values for every field that something acts on. What else they need is
// in both.
var pairs = map[string][2]string{
	"port":           {"port: 8000", "port: 9000"},
	"model":          {"model: a", "model: b"},
	"https":          {"https: true", "https: false"},
	"auth":           {"auth: true", "auth: false"},
	"replicas":       {"replicas: 1", "replicas: 2"},
	"scaling":        {"replicas: 1..2\nscaling: {metric: rps, target: 1}", "replicas: 1..2\nscaling: {metric: concurrency, target: 1}"},
	"name":           {"name: aa", "name: bb"},
	"image":          {"image: a", "image: b"},
	"entrypoint":     {"entrypoint: a", "entrypoint: b"},
	"working_dir":    {"working_dir: a", "working_dir: b"},
	"registry_auth":  {"registry_auth: {username: u, password: a}", "registry_auth: {username: u, password: b}"},
	"python":         {"python: 3.11", "python: 3.12"},
	"nvcc":           {"nvcc: false", "nvcc: true"},
	"env":            {"env: [A=1]", "env: [A=2]"},
	"resources":      {"resources: {cpu: 2..}", "resources: {cpu: 4..}"},
	"commands":       {"commands: [a]", "commands: [a, b]"},
	"backends":       {"backends: [aws]", "backends: [gcp]"},
	"regions":        {"regions: [a]", "regions: [b]"},
	"instance_types": {"instance_types: [a]", "instance_types: [b]"},
	"spot_policy":    {"spot_policy: auto", "spot_policy: spot"},
	"retry":          {"retry: true", "retry: {on_events: [error]}"},
	"retry_policy":   {"retry_policy: {duration: 1h}", "retry_policy: {duration: 2h}"},
	"max_duration":   {"max_duration: 1h", "max_duration: off"},
	"max_price":      {"max_price: 1", "max_price: 2"},
	"probes":         {"probes: [{type: http}]", "probes: [{type: http, url: /health}]"},
	"rate_limits":    {"rate_limits: [{rps: 1}]", "rate_limits: [{rps: 2}]"},
	"drain_timeout":  {"drain_timeout: 0", "drain_timeout: 5m"},
	"hold":           {"hold: {requests: 1}", "hold: {requests: 2}"},
}

// Fields whose only meaning that is acted on is their default.
var alwaysTheSame = []string{"type", "gateway", "strip_prefix"}

func parsed(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string) dstack.RunSpec {
	t.Helper()
	for _, line := range []string{"type: service", "port: 8000", "commands: [a]"} {
		key, _, _ := strings.Cut(line, " ")
		if !strings.Contains("\n"+text, "\n"+key) {
			text = line + "\n" + text
		}
	}
	s, err := spec.Parse("f", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if problems := spec.Unsupported(s, spec.Profile{}); problems != nil {
		t.Fatalf("%s: %v", text, problems)
	}
	return dstack.RunSpec{Configuration: *s}
}

// actedOn names the fields of a service, by the schema that is made of the
// parser's own table.
func actedOn(t *testing.T) []string {
	t.Helper()
	text, err := spec.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs struct {
			Service struct {
				Properties map[string]struct{ Description string }
			}
		} `json:"$defs"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(schema.Defs.Service.Properties)) {
		if !strings.HasSuffix(schema.Defs.Service.Properties[name].Description, " Not acted on yet.") {
			names = append(names, name)
		}
	}
	return names
}

// same tells whether replicas of both specs are the same to an engine, and to
// whoever looks for a machine.
func same(a, b dstack.RunSpec) bool {
	order := func(s dstack.RunSpec) dstack.AttemptSpec {
		return job.BuildAttemptSpec(dstack.Run{Name: "run", Spec: s}, dstack.Replica{})
	}
	return reflect.DeepEqual(order(a), order(b)) && reflect.DeepEqual(job.BuildRequirements(a), job.BuildRequirements(b))
}

// What the table calls rolling is what changes containers or their machine,
// and nothing else is, field by field of the language.
func TestChange_IsRollingWhereReplicasDiffer(t *testing.T) {
	fields := actedOn(t)
	if len(fields) < 30 {
		t.Fatalf("the schema has only the fields %v", fields)
	}
	for _, field := range fields {
		t.Run(field, func(t *testing.T) {
			pair, known := pairs[field]
			if !known {
				if !slices.Contains(alwaysTheSame, field) {
					t.Fatal("this test has no values for it: say how it changes in job.Change, and add a pair")
				}
				return
			}
			a, b := parsed(t, pair[0]), parsed(t, pair[1])
			found := job.CompareSpecs(a, b)
			for _, d := range found {
				if top, _, _ := strings.Cut(d.Path, "."); top != field && top+"_policy" != field {
					t.Errorf("%s changes, too", d.Path)
				}
			}
			if len(found) == 0 && field != "name" {
				t.Error("nobody would be told that it changes")
			}
			rolling := job.StrategyOfChange(field) == job.Rolling
			if differs := !same(a, b); differs != rolling && field != "probes" {
				t.Errorf("containers differ: %v, but it is made %s", differs, job.StrategyOfChange(field))
			}
			if job.NeedsRollout(a, b) != rolling {
				t.Errorf("it is made %s, and yet it rolls: %v", job.StrategyOfChange(field), !rolling)
			}
		})
	}
}

func TestChange(t *testing.T) {
	for path, want := range map[string]job.UpdateStrategy{
		"commands.1": job.Rolling, "env.A": job.Rolling, "resources.gpu": job.Rolling, "probes.0": job.Rolling, "code": job.Rolling,
		"scaling.target": job.InPlace, "rate_limits.0": job.InPlace, "hold.timeout": job.InPlace, "model.name": job.InPlace, "replicas": job.InPlace,
		"volumes.v": job.Rolling, "something.new": job.Rolling, "": job.Rolling,
	} {
		if got := job.StrategyOfChange(path); got != want {
			t.Errorf("%q is made %s, not %s", path, got, want)
		}
	}
}

func TestRolls(t *testing.T) {
	one, two := "0123456789", "9876543210"
	coded := func(text string, hash *string) dstack.RunSpec {
		s := parsed(t, text)
		s.RepoCodeHash = hash
		return s
	}
	profiled := func(text string, p spec.Params) dstack.RunSpec {
		s := parsed(t, text)
		s.Profile.Params = p
		return s
	}
	in := func(dir, text string) dstack.RunSpec {
		s := parsed(t, text)
		s.WorkingDir = dir
		return s
	}
	const imageOnly = "image: x\ncommands: []\n"
	for _, c := range []struct {
		name     string
		from, to dstack.RunSpec
		rolls    bool
		paths    string
	}{
		{"nothing", parsed(t, "env: [A=1]"), parsed(t, "env: {A: 1}"), false, ""},
		{"the profile says what the configuration said", parsed(t, "regions: [a]\nspot_policy: spot"), profiled("spot_policy: spot", spec.Params{Regions: []string{"a"}}), false, ""},
		{"the profile says something else", parsed(t, "regions: [a]"), profiled("auth: true", spec.Params{Regions: []string{"b"}}), true, "regions"},
		{"the profile is overruled", profiled("regions: [a]", spec.Params{Regions: []string{"b"}}), profiled("regions: [a]", spec.Params{Regions: []string{"c"}}), false, ""},
		{"two that are made in place", parsed(t, "replicas: 1"), parsed(t, "replicas: 3\nauth: false"), false, "auth replicas"},
		{"one of two rolls", parsed(t, "replicas: 1"), parsed(t, "replicas: 3\nenv: [A=1]"), true, "replicas env.A"},
		{"a secret", parsed(t, "env: [A=1]"), parsed(t, "env: [A=2]"), true, "env.A"},
		{"the name", parsed(t, "name: aa"), parsed(t, "auth: true"), false, ""},
		{"other files", coded("", &one), coded("", &two), true, "code"},
		{"the first files", coded("", nil), coded("", &two), true, "code"},
		{"no files any more", coded("", &one), coded("", nil), true, "code"},
		{"the same files", coded("", &one), coded("", &[]string{one}[0]), false, ""},
		{"other files beside an image that gets none", coded(imageOnly, &one), coded(imageOnly, &two), false, "code"},
		{"applied from another folder", in(".", ""), in("below", ""), true, "working_dir"},
		{"applied from another folder, with other variables", in(".", "env: [A=1]"), in("below", "env: [A=2]"), true, "env.A working_dir"},
		{"no folder is the one that was applied from", in("", ""), in(".", ""), false, ""},
		{"the configuration's folder wins", in(".", "working_dir: a"), in("below", "working_dir: a"), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := job.NeedsRollout(c.from, c.to); got != c.rolls {
				t.Errorf("it rolls: %v", got)
			}
			var paths []string
			for _, d := range job.CompareSpecs(c.from, c.to) {
				paths = append(paths, d.Path)
				if strings.Contains(d.From+d.To, "23456789") {
					t.Errorf("%+v is too long", d)
				}
			}
			if got := strings.Join(paths, " "); got != c.paths {
				t.Errorf("what differs is %q, not %q", got, c.paths)
			}
		})
	}
}

// Whatever is changed at once: what does not roll leaves every container as
// it is.
func TestRolls_OrReplicasAreTheSame(t *testing.T) {
	var fields []string
	for _, field := range slices.Sorted(maps.Keys(pairs)) {
		if !slices.Contains([]string{"image", "scaling", "entrypoint"}, field) { // they do not go with others
			fields = append(fields, field)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var texts [2]string
		rolling, differ := false, false
		for _, field := range fields {
			a, b := rapid.IntRange(-6, 1).Draw(t, field), rapid.IntRange(-6, 1).Draw(t, field+" after")
			if a < 0 {
				a, b = 0, 0 // mostly, most fields stay
			}
			b = max(b, 0)
			texts[0] += pairs[field][a] + "\n"
			texts[1] += pairs[field][b] + "\n"
			if a != b && field != "name" && field != "retry_policy" { // beside retry, the latter says nothing
				differ = true
				rolling = rolling || job.StrategyOfChange(field) == job.Rolling
			}
		}
		a, b := parsed(t, texts[0]), parsed(t, texts[1])
		if got := job.NeedsRollout(a, b); got != rolling {
			t.Fatalf("it rolls: %v", got)
		}
		if !rolling && !same(a, b) {
			t.Fatal("containers differ, and it does not roll")
		}
		if found := job.CompareSpecs(a, b); (len(found) > 0) != differ {
			t.Fatalf("what differs is %v", found)
		}
	})
}
