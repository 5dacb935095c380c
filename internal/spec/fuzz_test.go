package spec_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

// Whatever the text, it is either refused with placed problems or has a
// normal form that reads back as itself.
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
		c, err := spec.Read("f", text)
		if err != nil {
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok || len(problems) == 0 {
				t.Fatalf("refused without problems: %v", err)
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
			again, err := spec.Read("f", form)
			if err != nil {
				t.Fatalf("%s is not read back: %v", form, err)
			}
			if twice, err := json.Marshal(again); err != nil || string(twice) != string(form) {
				t.Fatalf("read back it is another: %s, not %s (%v)", twice, form, err)
			}
			return
		}
		if s.NotYet != nil {
			return // refused by a plan, and kept nowhere
		}
		s.Renamed = false // the wire has the old names
		source, err := s.SourceJSON()
		if err != nil {
			t.Fatal(err)
		}
		var again spec.Service
		if err := json.Unmarshal(source, &again); err != nil {
			t.Fatalf("%s is not read back: %v", source, err)
		}
		if diff := cmp.Diff(*s, again); diff != "" {
			t.Fatalf("read back it is another:\n%s", diff)
		}
	})
}

// A value that is read is printed so that it reads as the same.
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
