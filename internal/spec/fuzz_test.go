package spec_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"dstack/internal/spec"
)

// Any text is either rejected with problems, or gives a configuration whose
// normal form parses to the same.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yml", "../../examples/*/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("type: service\nport: 80:8000\ncommands: [&a a, *a]\nenv: {A: 1, B: {key: C}}\nresources: {gpu: 'A100:40GB..:2', cpu: ..4, memory: 1TB, disk: null}\nretry: {on_events: [error], duration: 1d}\nreplicas: 1..4\nscaling: {metric: rps, target: 1e1}\nmodel: {type: chat, name: m, format: tgi}\nmax_price: .5\nmax_duration: off\n"))
	f.Add([]byte("a: &a {<<: [*a]}\n<<: *a\n? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := spec.ParseConfiguration("f", text)
		if err != nil {
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok || len(problems) == 0 {
				t.Fatalf("rejected without Problems: %v", err)
			}
			problems.Render(true)
			return
		}
		c.Unsupported()
		form, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		s, ok := c.(*spec.Service)
		if !ok {
			again, err := spec.ParseConfiguration("f", form)
			if err != nil {
				t.Fatalf("cannot parse %s: %v", form, err)
			}
			if twice, err := json.Marshal(again); err != nil || string(twice) != string(form) {
				t.Fatalf("the normal form parses to %s, want %s (%v)", twice, form, err)
			}
			return
		}
		if s.UnsupportedNotes != nil {
			return // unsupported features are not kept
		}
		source, err := s.SourceJSON()
		if err != nil {
			t.Fatal(err)
		}
		var again spec.Service
		if err := json.Unmarshal(source, &again); err != nil {
			t.Fatalf("cannot parse %s: %v", source, err)
		}
		if diff := cmp.Diff(*s, again); diff != "" {
			t.Fatalf("SourceJSON parses to another service:\n%s", diff)
		}
	})
}

// A value that parses is formatted as text that parses to the same value.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{"16GB", "512MB", "1.5TB..", "24GB..40GB:2", "A10G,A100", "1d", "1 w", "A=b", "..4", "\x00", "1e3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := spec.ParseGB(text); err == nil {
			if again, err := spec.ParseGB(v.String()); err != nil || again != v {
				t.Errorf("%q is %s, which is %s (%v)", text, v, again, err)
			}
		}
		if v, err := spec.ParseDuration(text); err == nil {
			if again, err := spec.ParseDuration(v.String()); err != nil || again != v {
				t.Errorf("%q is %s, which is %s (%v)", text, v, again, err)
			}
		}
		if g, err := spec.ParseGPU(text); err == nil && g.Count.Min == nil && g.Count.Max == nil {
			t.Errorf("%q has no count", text)
		}
		if v, err := spec.ParseEnvVar(text); err == nil && v.Name == "" {
			t.Errorf("%q has no name", text)
		}
		s := spec.Service{Commands: []string{text}}
		spec.Interpolate(&s, []string{"a"}, func(string) (string, bool) { return "", false })
	})
}

// fuzzedFields are the fields with a syntax of their own. %s is replaced by the
// text.
var fuzzedFields = []string{
	`"port": %s`, `"replicas": %s, "scaling": {"metric": "rps", "target": 1}`, `"replicas": %s`, `"env": [%s]`, `"env": {"A": %s}`,
	`"resources": {"cpu": %s}`, `"resources": {"memory": %s}`, `"resources": {"shm_size": %s}`, `"resources": {"gpu": %s}`, `"resources": {"disk": %s}`,
	`"resources": {"gpu": {"count": %s}}`, `"resources": {"gpu": {"name": %s}}`, `"resources": {"gpu": {"compute_capability": %s}}`,
	`"max_duration": %s`, `"idle_duration": %s`, `"retry": %s`, `"max_price": %s`, `"python": %s`, `"auth": %s`, `"volumes": [%s]`, `"model": %s`,
	`"name": %s`, `"priority": %s`, `"user": %s`, `"shell": %s`, `"files": [%s]`, `"gateway": %s`, `"https": %s`, `"rate_limits": [{"rps": %s}]`,
	`"probes": [{"type": "http", "url": %s}]`, `"probes": [{"type": "http", "timeout": %s}]`, `"probes": [{"type": "http", "ready_after": %s}]`,
	`"drain_timeout": %s`, `"hold": %s`, `"hold": {"requests": %s}`, `"hold": {"timeout": %s}`,
	`"replicas": "1..2", "scaling": {"metric": "concurrency", "target": 1, "window": %s}`,
}

// For any text in any field: the parser accepts it or reports a problem; what
// it accepts, it also accepts in normal form, and so does the schema.
func FuzzFields(f *testing.F) {
	for _, seed := range []string{"8000", "80:8000", "1..4", "..3", "16GB", "16 gb..", "A100:80GB:2", "nvidia:24GB..:1..8", "1d", "off", "A=b", "K", "v:/d", "/a:/b", "7.5", "-1", "1e3", "0x10", "1_000", "true", "No", "", " ", "1 0", "+4", "4 ..8", "1.5", "héllo", "[7, 5]", ".5TB", "null", "\"", "3.10"} {
		f.Add(seed)
	}
	schema := compileSchema(f, spec.Schema)
	f.Fuzz(func(t *testing.T, text string) {
		rareSpace := func(r rune) bool { return unicode.IsSpace(r) && !strings.ContainsRune(" \t\n\f\r", r) }
		if strings.ContainsFunc(text, rareSpace) {
			return // \s in ECMAScript matches these characters, but not in Go
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range fuzzedFields {
			for _, written := range []string{string(quoted), text} {
				if strings.ContainsAny(written, "\n#") && written == text {
					continue // unquoted, this would end the line
				}
				file := []byte("{type: service, port: 1, commands: [a], " + strings.Replace(field, "%s", written, 1) + "}")
				if strings.HasPrefix(field, `"port"`) {
					file = []byte(strings.Replace(string(file), "port: 1, ", "", 1))
				}
				c, err := spec.ParseConfiguration("f", file)
				if err != nil {
					continue
				}
				form, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := spec.ParseConfiguration("normal", form); err != nil && c.Unsupported() == nil {
					t.Errorf("%s parses, but its normal form does not: %v", file, err)
				}
				var v any
				if yaml.Load(file, &v) != nil {
					continue
				}
				if err := schema.Validate(convertKeys(v)); err != nil {
					t.Errorf("%s parses, but the schema rejects it: %v", file, err)
				}
			}
		}
	})
}
