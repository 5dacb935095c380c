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

// compileSchema compiles one of the schemas as an editor would.
func compileSchema(t testing.TB, make func() ([]byte, error)) *jsonschema.Schema {
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
		t.Fatalf("not a valid JSON Schema: %v", err)
	}
	return s
}

// decodeYAML decodes a file as an editor would, by the rules of YAML 1.2 only.
func decodeYAML(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Load(text, &v); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return convertKeys(v)
}

// convertKeys converts YAML mappings to mappings with text keys, as in JSON.
func convertKeys(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = convertKeys(x)
		}
		return v
	case map[any]any:
		m := map[string]any{}
		for k, x := range v {
			m[fmt.Sprint(k)] = convertKeys(x)
		}
		return m
	case []any:
		for i := range v {
			v[i] = convertKeys(v[i])
		}
	}
	return v
}

func TestSchema_AcceptsCorpus(t *testing.T) {
	s := compileSchema(t, spec.Schema)
	for _, pattern := range []string{"config/original/*/*.dstack.y*ml", "config/later/*/*.yml"} {
		for _, file := range listCorpus(t, pattern) {
			if err := s.Validate(decodeYAML(t, readFile(t, file))); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}

// The schema never rejects what the parser accepts.
func TestSchema_AcceptsAllSpellings(t *testing.T) {
	s := compileSchema(t, spec.Schema)
	for _, c := range spellings {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			if err := s.Validate(decodeYAML(t, []byte(withRequiredFields(input)))); err != nil {
				t.Errorf("%s: %v", input, err)
			}
		}
	}
	for _, input := range unsupportedSpellings {
		if err := s.Validate(decodeYAML(t, []byte(withRequiredFields(input)))); err != nil {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// rareSpellings are accepted spellings that hardly anybody uses.
var rareSpellings = []string{
	"port: '+5'", "port: '00008000'", "port: '0080:8000'", `port: "\t80\n"`, "priority: '+5'", "priority: '-0'",
	"resources: {cpu: '+4'}", "resources: {cpu: '- 0..+4'}", "resources: {memory: '+ 1 GB'}", "resources: {gpu: {count: {min: '+1'}}}", "resources: {memory: 1E + 1GB}",
	`resources: {gpu: {compute_capability: "\t7.5"}}`, `resources: {cpu: "arm\t:4"}`,
	"max_duration: '+5'", "termination_idle_time: '-0'", `retry: {on_events: [error], duration: "\t4"}`, "max_duration: 1_000", `max_price: "\t4"`,
	"env: [true]", "env: {A: {key: true}}", "user: true", "files: [1, true]", "probes: [{type: http, body: 1, headers: [{name: 1, value: 2}]}]",
	"volumes: [{instance_path: /a/, path: /b}]", "volumes: [/a/:/b]",
}

func TestSchema_AcceptsRareSpellings(t *testing.T) {
	s := compileSchema(t, spec.Schema)
	for _, input := range rareSpellings {
		if _, err := spec.ParseConfiguration("f", []byte(withRequiredFields(input))); err != nil {
			t.Errorf("%s is rejected: %v", input, err)
		}
		if err := s.Validate(decodeYAML(t, []byte(withRequiredFields(input)))); err != nil {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// notInSchema are parts of messages about mistakes that a schema cannot
// express: arithmetic, order, duplicates, and relations between fields.
var notInSchema = []string{
	"the minimum", "is below the minimum", "invalid range order", "`scaling` is required", "requires `replicas` to be a range",
	"duplicate environment variable", "sets the model twice", "sets the memory twice", "sets the count twice", "sets the maker twice",
	"empty part", "empty GPU name", "invalid empty range", "more than one", "too large", "too long", "between 1 and 65535",
	"not a GPU", "is not a size", "is not a whole number", "negative", "outside of the uploaded folder", "nothing can be mounted at", "zero byte", "not supported yet",
	"not a list", "for the service", "cannot both be set", "no `nvcc` with Python", "can have at most", "two rate limits", "is required with type: header", "can only be used with type", "is too short", "s and 1h", "less than one request", "must be a list",
	"is not a cron expression", "is not the name of a model", "more than two paths", "not a path in a container", "home directory of another user", "its root folder", "control characters", "two files have the path",
	"does not name a file", "does not name a repository", "either `local_path` or `url`", "mutually exclusive", "belongs to `url`", "contains a user name", "invalid volume mount path", "a quote is not closed", "invalid compute capability",
}

func TestSchema_RejectsMostMistakes(t *testing.T) {
	s := compileSchema(t, spec.Schema)
	refused, let := 0, 0
	for _, c := range mistakes {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			text := withRequiredFields(input)
			switch {
			case strings.Contains(input, "x_commands:"):
				text = "type: service\nport: 8000\nentrypoint: a\n"
			case strings.Contains(input, "x_type:"):
				text = "port: 8000\ncommands: [a]\n"
			}
			_, err := spec.ParseConfiguration("f", []byte(text))
			if err == nil {
				t.Fatalf("%s is accepted", input)
			}
			if s.Validate(decodeYAML(t, []byte(text))) != nil {
				refused++
				continue
			}
			let++
			excused := false
			for _, beyond := range notInSchema {
				excused = excused || strings.Contains(err.Error(), beyond)
			}
			if !excused {
				t.Errorf("the schema accepts %s, but the parser does not: %v", input, err)
			}
		}
	}
	t.Logf("%d rejected, %d accepted", refused, let)
	if refused < 3*let {
		t.Errorf("the schema accepts %d of %d mistakes", let, refused+let)
	}
}

func TestProfilesSchema(t *testing.T) {
	s := compileSchema(t, spec.ProfilesSchema)
	for text, good := range map[string]bool{
		"profiles: [{name: a, default: true, spot_policy: spot, retry: true, max_duration: off, idle_duration: 1h}]": true,
		"profiles: []":                true,
		"profiles: [{default: 1}]":    false,
		"profiles: [{name: a, x: 1}]": false,
		"profile: []":                 false,
	} {
		if err := s.Validate(decodeYAML(t, []byte(text))); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := spec.ParseProfiles("f", []byte(text)); (err == nil) != good {
			t.Errorf("%s: the parser disagrees: %v", text, err)
		}
	}
}
