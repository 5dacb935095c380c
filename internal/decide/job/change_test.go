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

// fieldPairs has two values for every implemented field. Other fields that a
// value requires are equal in both.
var fieldPairs = map[string][2]string{
	"port":               {"port: 8000", "port: 9000"},
	"model":              {"model: a", "model: b"},
	"https":              {"https: true", "https: false"},
	"gateway":            {"gateway: true", "gateway: false"},
	"auth":               {"auth: true", "auth: false"},
	"replicas":           {"replicas: 1", "replicas: 2"},
	"groups":             {"groups: [{replicas: 1, commands: [a]}]", "groups: [{replicas: 1, commands: [b]}]"},
	"scaling":            {"replicas: 1..2\nscaling: {metric: rps, target: 1}", "replicas: 1..2\nscaling: {metric: concurrency, target: 1}"},
	"name":               {"name: aa", "name: bb"},
	"image":              {"image: a", "image: b"},
	"entrypoint":         {"entrypoint: a", "entrypoint: b"},
	"working_dir":        {"working_dir: a", "working_dir: b"},
	"registry_auth":      {"registry_auth: {username: u, password: a}", "registry_auth: {username: u, password: b}"},
	"python":             {"python: 3.11", "python: 3.12"},
	"nvcc":               {"nvcc: false", "nvcc: true"},
	"env":                {"env: [A=1]", "env: [A=2]"},
	"resources":          {"resources: {cpu: 2..}", "resources: {cpu: 4..}"},
	"volumes":            {"volumes: [a:/d]", "volumes: [b:/d]"},
	"commands":           {"commands: [a]", "commands: [a, b]"},
	"backends":           {"backends: [aws]", "backends: [gcp]"},
	"regions":            {"regions: [a]", "regions: [b]"},
	"fleets":             {"fleets: [a]", "fleets: [b]"},
	"availability_zones": {"availability_zones: [a1]", "availability_zones: [b1]"},
	"instance_types":     {"instance_types: [a]", "instance_types: [b]"},
	"spot_policy":        {"spot_policy: auto", "spot_policy: spot"},
	"retry":              {"retry: true", "retry: {on_events: [error]}"},
	"retry_policy":       {"retry_policy: {duration: 1h}", "retry_policy: {duration: 2h}"},
	"max_duration":       {"max_duration: 1h", "max_duration: off"},
	"max_price":          {"max_price: 1", "max_price: 2"},
	"probes":             {"probes: [{type: http}]", "probes: [{type: http, url: /health}]"},
	"rate_limits":        {"rate_limits: [{rps: 1}]", "rate_limits: [{rps: 2}]"},
	"drain_timeout":      {"drain_timeout: 0", "drain_timeout: 5m"},
	"hold":               {"hold: {requests: 1}", "hold: {requests: 2}"},
	"files":              {"files: ['a:b']", "files: ['a:c']"},
	"repos":              {"repos: [{url: 'https://example.com/a', if_exists: skip}]", "repos: ['https://example.com/a']"},

	"pool_name":             {"pool_name: a", "pool_name: b"},
	"instance_name":         {"instance_name: a", "instance_name: b"},
	"creation_policy":       {"creation_policy: reuse", "creation_policy: reuse-or-create"},
	"termination_policy":    {"termination_policy: dont-destroy", "termination_policy: destroy-after-idle"},
	"termination_idle_time": {"termination_idle_time: 1h", "termination_idle_time: 2h"},
	"idle_duration":         {"idle_duration: 1h", "idle_duration: 2h"},
}

// otherSpellings maps fields to the spelling by which changes of them are reported.
var otherSpellings = map[string]string{"retry_policy": "retry", "idle_duration": "termination_idle_time"}

// constantFields are fields for which only the default is implemented.
var constantFields = []string{"type", "strip_prefix"}

func parseRunSpec(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string) dstack.RunSpec {
	t.Helper()
	for _, line := range []string{"type: service", "port: 8000", "commands: [a]"} {
		key, _, _ := strings.Cut(line, " ")
		if key == "commands:" && strings.Contains(text, "groups:") {
			continue
		}
		if !strings.Contains("\n"+text, "\n"+key) {
			text = line + "\n" + text
		}
	}
	s, err := spec.ParseService("f", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if problems := spec.Unsupported(s, spec.Profile{}); problems != nil {
		t.Fatalf("%s: %v", text, problems)
	}
	rs := dstack.RunSpec{Configuration: *s}
	for _, f := range s.Files {
		rs.FileArchives = append(rs.FileArchives, dstack.FileArchive{ID: "a", Hash: "0123456789", Path: f.Path})
	}
	return rs
}

// implementedFields returns the implemented fields of a service. It reads them
// from the JSON Schema, which is generated from the tables of the parser.
func implementedFields(t *testing.T) []string {
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
		if !strings.HasSuffix(schema.Defs.Service.Properties[name].Description, " Not supported yet.") {
			names = append(names, name)
		}
	}
	return names
}

// haveSameReplicas reports whether both specifications give the same AttemptSpec
// and the same Requirements. Volumes become mounts of the AttemptSpec in package volume.
func haveSameReplicas(a, b dstack.RunSpec) bool {
	a, _ = a.ForGroup(spec.DefaultGroup)
	b, _ = b.ForGroup(spec.DefaultGroup)
	attempt := func(s dstack.RunSpec) dstack.AttemptSpec {
		built := job.BuildAttemptSpec(dstack.Run{Name: "run", Spec: s}, dstack.Replica{})
		built.DrainTimeout = 0 // replicas that run keep the one with which they were started
		return built
	}
	return reflect.DeepEqual(a.Configuration.Volumes, b.Configuration.Volumes) && reflect.DeepEqual(attempt(a), attempt(b)) &&
		reflect.DeepEqual(job.BuildRequirements(a), job.BuildRequirements(b))
}

// For every field, the strategy is Rolling exactly if a change affects containers
// or requirements.
func TestStrategyOfChange_IsRollingWhereReplicasDiffer(t *testing.T) {
	fields := implementedFields(t)
	if len(fields) < 30 {
		t.Fatalf("the schema has only the fields %v", fields)
	}
	for _, field := range fields {
		t.Run(field, func(t *testing.T) {
			pair, known := fieldPairs[field]
			if !known {
				if !slices.Contains(constantFields, field) {
					t.Fatal("the field has no test values: add it to the strategies of package job, and a pair to fieldPairs")
				}
				return
			}
			a, b := parseRunSpec(t, pair[0]), parseRunSpec(t, pair[1])
			found := job.CompareSpecs(a, b)
			for _, d := range found {
				if top, _, _ := strings.Cut(d.Path, "."); top != field && otherSpellings[field] != top {
					t.Errorf("%s differs as well", d.Path)
				}
			}
			if len(found) == 0 && field != "name" {
				t.Error("the change is not reported")
			}
			rolling := job.StrategyOfChange(field) == job.Rolling
			if differs := !haveSameReplicas(a, b); differs != rolling && field != "probes" {
				t.Errorf("containers differ: %v, but the strategy is %s", differs, job.StrategyOfChange(field))
			}
			if job.NeedsRollout(a, b) != rolling {
				t.Errorf("the strategy is %s, but NeedsRollout is %v", job.StrategyOfChange(field), !rolling)
			}
		})
	}
}

func TestStrategyOfChange(t *testing.T) {
	for path, want := range map[string]job.UpdateStrategy{
		"commands.1": job.Rolling, "env.A": job.Rolling, "resources.gpu": job.Rolling, "probes.0": job.Rolling, "code": job.Rolling,
		"scaling.target": job.InPlace, "rate_limits.0": job.InPlace, "hold.timeout": job.InPlace, "model.name": job.InPlace, "replicas": job.InPlace,
		"groups.a.replicas": job.InPlace, "groups.a.scaling.target": job.InPlace, "groups.a.commands.0": job.Rolling, "groups.a": job.Rolling,
		"volumes.v": job.Rolling, "something.new": job.Rolling, "": job.Rolling,
	} {
		if got := job.StrategyOfChange(path); got != want {
			t.Errorf("the strategy of %q is %s, not %s", path, got, want)
		}
	}
}

func TestCompareSpecs(t *testing.T) {
	one, two := "0123456789", "9876543210"
	withCode := func(text string, hash *string) dstack.RunSpec {
		s := parseRunSpec(t, text)
		s.RepoCodeHash = hash
		return s
	}
	withProfile := func(text string, p spec.Params) dstack.RunSpec {
		s := parseRunSpec(t, text)
		s.Profile.Params = p
		return s
	}
	inFolder := func(dir, text string) dstack.RunSpec {
		s := parseRunSpec(t, text)
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
		{"nothing", parseRunSpec(t, "env: [A=1]"), parseRunSpec(t, "env: {A: 1}"), false, ""},
		{"a value moves from configuration to profile", parseRunSpec(t, "regions: [a]\nspot_policy: spot"), withProfile("spot_policy: spot", spec.Params{Regions: []string{"a"}}), false, ""},
		{"the profile has another value", parseRunSpec(t, "regions: [a]"), withProfile("auth: true", spec.Params{Regions: []string{"b"}}), true, "regions"},
		{"the configuration overrides the profile", withProfile("regions: [a]", spec.Params{Regions: []string{"b"}}), withProfile("regions: [a]", spec.Params{Regions: []string{"c"}}), false, ""},
		{"two changes in place", parseRunSpec(t, "replicas: 1"), parseRunSpec(t, "replicas: 3\nauth: false"), false, "auth replicas"},
		{"one of two changes is rolling", parseRunSpec(t, "replicas: 1"), parseRunSpec(t, "replicas: 3\nenv: [A=1]"), true, "replicas env.A"},
		{"a secret", parseRunSpec(t, "env: [A=1]"), parseRunSpec(t, "env: [A=2]"), true, "env.A"},
		{"the name", parseRunSpec(t, "name: aa"), parseRunSpec(t, "auth: true"), false, ""},
		{"other files", withCode("", &one), withCode("", &two), true, "code"},
		{"the first files", withCode("", nil), withCode("", &two), true, "code"},
		{"no more files", withCode("", &one), withCode("", nil), true, "code"},
		{"the number of a group", parseRunSpec(t, "groups: [{replicas: 1, commands: [a]}]"), parseRunSpec(t, "groups: [{replicas: 2, commands: [a]}]"), false, "groups.0.replicas"},
		{"a new group", parseRunSpec(t, "replicas: 1"), parseRunSpec(t, "groups: [{replicas: 1, commands: [a]}, {replicas: 1, commands: [b]}]"), true, "groups.1"},
		{"a folder, with groups", inFolder(".", "groups: [{replicas: 1, commands: [a]}]"), inFolder("below", "groups: [{replicas: 1, commands: [a]}]"), true, "working_dir"},
		{"code, with groups", withCode("groups: [{replicas: 1, image: x}]", &one), withCode("groups: [{replicas: 1, image: x}]", &two), false, "code"},
		{"the same files", withCode("", &one), withCode("", &[]string{one}[0]), false, ""},
		{"other files with an image that has no commands", withCode(imageOnly, &one), withCode(imageOnly, &two), false, "code"},
		{"applied from another folder", inFolder(".", ""), inFolder("below", ""), true, "working_dir"},
		{"applied from another folder, with other variables", inFolder(".", "env: [A=1]"), inFolder("below", "env: [A=2]"), true, "env.A working_dir"},
		{"an empty folder means the same as .", inFolder("", ""), inFolder(".", ""), false, ""},
		{"the configuration's folder wins", inFolder(".", "working_dir: a"), inFolder("below", "working_dir: a"), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := job.NeedsRollout(c.from, c.to); got != c.rolls {
				t.Errorf("NeedsRollout is %v", got)
			}
			var paths []string
			for _, d := range job.CompareSpecs(c.from, c.to) {
				paths = append(paths, d.Path)
				if strings.Contains(d.From+d.To, "23456789") {
					t.Errorf("%+v is too long", d)
				}
			}
			if got := strings.Join(paths, " "); got != c.paths {
				t.Errorf("the differences are %q, not %q", got, c.paths)
			}
		})
	}
}

// Whatever combination of fields changes: without a rollout, replicas of both
// specifications are identical.
func TestNeedsRollout_OrReplicasAreTheSame(t *testing.T) {
	var fields []string
	for _, field := range slices.Sorted(maps.Keys(fieldPairs)) {
		if !slices.Contains([]string{"image", "scaling", "entrypoint", "groups", "idle_duration"}, field) { // cannot be combined with other fields
			fields = append(fields, field)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var texts [2]string
		rolling, differ := false, false
		for _, field := range fields {
			a, b := rapid.IntRange(-6, 1).Draw(t, field), rapid.IntRange(-6, 1).Draw(t, field+" after")
			if a < 0 {
				a, b = 0, 0 // most fields stay unchanged
			}
			b = max(b, 0)
			texts[0] += fieldPairs[field][a] + "\n"
			texts[1] += fieldPairs[field][b] + "\n"
			if a != b && field != "name" && field != "retry_policy" { // retry overrides retry_policy
				differ = true
				rolling = rolling || job.StrategyOfChange(field) == job.Rolling
			}
		}
		a, b := parseRunSpec(t, texts[0]), parseRunSpec(t, texts[1])
		if got := job.NeedsRollout(a, b); got != rolling {
			t.Fatalf("NeedsRollout is %v", got)
		}
		if !rolling && !haveSameReplicas(a, b) {
			t.Fatal("containers differ without a rollout")
		}
		if found := job.CompareSpecs(a, b); (len(found) > 0) != differ {
			t.Fatalf("the differences are %v", found)
		}
	})
}

// The value of a secret is compared by its version, and never shown.
func TestCompareSpecs_ValuesOfSecrets(t *testing.T) {
	from, to := parseRunSpec(t, "env: {A: '${{ secrets.A }}'}"), parseRunSpec(t, "env: {A: '${{ secrets.A }}'}")
	if found := job.CompareSpecs(from, to); len(found) != 0 {
		t.Errorf("got %+v", found)
	}
	to.Secrets = map[string]dstack.SecretVersion{"A": 2, "B": 3}
	if found := job.CompareSpecs(from, to); len(found) != 0 { // stored before there were secrets
		t.Errorf("got %+v", found)
	}
	from.Secrets = map[string]dstack.SecretVersion{"A": 1, "C": 3}
	found := job.CompareSpecs(from, to)
	if len(found) != 1 || found[0].Path != "secrets.A" || found[0].Strategy != job.Rolling || !found[0].IsSecret() || !job.NeedsRollout(from, to) {
		t.Errorf("got %+v", found)
	}
}

// A change leaves the groups alone that it does not concern.
func TestUnchangedGroups(t *testing.T) {
	const base = "groups:\n- {name: a, replicas: 1, commands: [a]}\n- {name: b, replicas: 1, commands: [b], resources: {gpu: 24GB}}\n"
	for _, c := range []struct{ name, from, to, want string }{
		{"nothing", base, base, "a b"},
		{"one group", base, strings.Replace(base, "[b]", "[c]", 1), "a"},
		{"the number of replicas", base, strings.Replace(base, "replicas: 1", "replicas: 2", 1), "a b"},
		{"all groups", base, base + "env: [A=1]\n", ""},
		{"a renamed group", base, strings.Replace(base, "name: b", "name: c", 1), "a"},
		{"the service becomes a group", "replicas: 2", "groups: [{replicas: 2, commands: [a]}, {replicas: 1, commands: [b]}]", "0"},
		{"the group becomes the service", "groups: [{replicas: 2, commands: [a]}]", "replicas: 2", "0"},
	} {
		if got := strings.Join(job.UnchangedGroups(parseRunSpec(t, c.from), parseRunSpec(t, c.to)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
