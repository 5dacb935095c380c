package spec_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"dstack/internal/spec"
)

// compiled is one of our schemas, as an editor would use it.
func compiled(t testing.TB, make func() ([]byte, error)) *jsonschema.Schema {
	t.Helper()
	text, err := make()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("dstack.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("dstack.json")
	if err != nil {
		t.Fatalf("it is no JSON Schema: %v", err)
	}
	return s
}

// value is a file as an editor sees it: by the rules of YAML 1.2, and of
// nothing of ours.
func value(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Load(text, &v); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return jsonLike(v)
}

// jsonLike makes what JSON has of what YAML has.
func jsonLike(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = jsonLike(x)
		}
		return v
	case map[any]any:
		m := map[string]any{}
		for k, x := range v {
			m[fmt.Sprint(k)] = jsonLike(x)
		}
		return m
	case []any:
		for i := range v {
			v[i] = jsonLike(v[i])
		}
	}
	return v
}

func TestSchemaAcceptsEveryFileOfTheCorpus(t *testing.T) {
	s := compiled(t, spec.Schema)
	for _, pattern := range []string{"config/original/*/*.dstack.y*ml", "config/later/*/*.yml"} {
		for _, file := range corpus(t, pattern) {
			if err := s.Validate(value(t, read(t, file))); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}

// The schema must never refuse what the parser reads.
func TestSchemaAcceptsEverySpelling(t *testing.T) {
	s := compiled(t, spec.Schema)
	for _, c := range spellings {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			if err := s.Validate(value(t, []byte(base(input)))); err != nil {
				t.Errorf("%s: %v", input, err)
			}
		}
	}
	for _, input := range laterSpellings {
		if err := s.Validate(value(t, []byte(base(input)))); err != nil {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// oddSpellings are read, though hardly anybody writes them.
var oddSpellings = []string{
	"port: '+5'", "port: '00008000'", "port: '0080:8000'", `port: "\t80\n"`, "priority: '+5'", "priority: '-0'",
	"resources: {cpu: '+4'}", "resources: {cpu: '- 0..+4'}", "resources: {memory: '+ 1 GB'}", "resources: {gpu: {count: {min: '+1'}}}", "resources: {memory: 1E + 1GB}",
	`resources: {gpu: {compute_capability: "\t7.5"}}`, `resources: {cpu: "arm\t:4"}`,
	"max_duration: '+5'", "termination_idle_time: '-0'", `retry: {on_events: [error], duration: "\t4"}`, "max_duration: 1_000", `max_price: "\t4"`,
	"env: [true]", "env: {A: {key: true}}", "user: true", "files: [1, true]", "probes: [{type: http, body: 1, headers: [{name: 1, value: 2}]}]",
	"volumes: [{instance_path: /a/, path: /b}]", "volumes: [/a/:/b]",
}

func TestSchemaAcceptsOddSpellings(t *testing.T) {
	s := compiled(t, spec.Schema)
	for _, input := range oddSpellings {
		if _, err := spec.ParseConfiguration("f", []byte(base(input))); err != nil {
			t.Errorf("%s is refused: %v", input, err)
		}
		if err := s.Validate(value(t, []byte(base(input)))); err != nil {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// What a schema cannot see: sums, order, sameness, and what two fields mean
// together.
var beyondSchemas = []string{
	"the minimum", "is below the minimum", "invalid range order", "`scaling` is required", "requires `replicas` to be a range",
	"duplicate environment variable", "sets the model twice", "sets the memory twice", "sets the count twice", "sets the maker twice",
	"empty part", "empty GPU name", "invalid empty range", "more than one", "too large", "too long", "between 1 and 65535",
	"not a GPU", "is not a size", "is not a whole number", "negative", "outside of the uploaded folder", "inside /workflow", "zero byte", "not supported yet",
	"not a list", "for the service", "cannot both be set", "can have at most", "two rate limits", "is required with type: header", "can only be used with type", "is too short", "s and 1h", "less than one request", "must be a list",
	"invalid volume mount path", "a quote is not closed", "invalid compute capability",
}

func TestSchemaRefusesWhatASchemaCan(t *testing.T) {
	s := compiled(t, spec.Schema)
	refused, let := 0, 0
	for _, c := range refusals {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			text := base(input)
			switch {
			case strings.Contains(input, "x_commands:"):
				text = "type: service\nport: 8000\nentrypoint: a\n"
			case strings.Contains(input, "x_type:"):
				text = "port: 8000\ncommands: [a]\n"
			}
			_, err := spec.ParseConfiguration("f", []byte(text))
			if err == nil {
				t.Fatalf("%s is read", input)
			}
			if s.Validate(value(t, []byte(text))) != nil {
				refused++
				continue
			}
			let++
			excused := false
			for _, beyond := range beyondSchemas {
				excused = excused || strings.Contains(err.Error(), beyond)
			}
			if !excused {
				t.Errorf("the schema lets through %s, which is: %v", input, err)
			}
		}
	}
	t.Logf("%d refused, %d let through", refused, let)
	if refused < 3*let {
		t.Errorf("the schema lets through %d of %d mistakes", let, refused+let)
	}
}

func TestProfilesSchema(t *testing.T) {
	s := compiled(t, spec.ProfilesSchema)
	for text, good := range map[string]bool{
		"profiles: [{name: a, default: true, spot_policy: spot, retry: true, max_duration: off, idle_duration: 1h}]": true,
		"profiles: []":                true,
		"profiles: [{default: 1}]":    false,
		"profiles: [{name: a, x: 1}]": false,
		"profile: []":                 false,
	} {
		if err := s.Validate(value(t, []byte(text))); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := spec.ParseProfiles("f", []byte(text)); (err == nil) != good {
			t.Errorf("%s is parsed otherwise: %v", text, err)
		}
	}
}
