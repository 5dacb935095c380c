package spec_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

const referenceFolder = "../../docs/reference"

func readPages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(referenceFolder, "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no reference: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[filepath.Base(file)] = string(readFile(t, file))
	}
	return all
}

// The tables in the reference agree with the tables of the parser.
func TestReference_IsUpToDate(t *testing.T) {
	before := readPages(t)
	after, err := spec.Reference(before)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range after {
		if *update {
			if err := os.WriteFile(filepath.Join(referenceFolder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(before[name], text); diff != "" {
			t.Errorf("%s is stale, run go test ./internal/spec -run TestReference -update:\n%s", name, diff)
		}
	}
}

// The default idle time differs between fleets and runs.
func TestReference_DefaultsOfEachType(t *testing.T) {
	all := readPages(t)
	for page, want := range map[string]string{"fleet.md": "`3d`", "service.md": "`5m`", "profiles.md": "`5m`"} {
		for _, field := range []string{"termination_idle_time", "idle_duration"} {
			row := regexp.MustCompile("(?m)^\\| `" + field + "` \\|.*$").FindString(all[page])
			if cells := strings.Split(row, "|"); len(cells) < 4 || strings.TrimSpace(cells[3]) != want {
				t.Errorf("%s has %q, and the default is %s", page, row, want)
			}
		}
	}
}

// The schema files in the reference agree with the generated schemas.
func TestReference_SchemasAreUpToDate(t *testing.T) {
	for name, make := range map[string]func() ([]byte, error){"dstack.schema.json": spec.Schema, "profiles.schema.json": spec.ProfilesSchema} {
		text, err := make()
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, '\n')
		file := filepath.Join(referenceFolder, name)
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(readFile(t, file)), string(text)); diff != "" {
			t.Errorf("%s is stale, run go test ./internal/spec -run TestReference -update:\n%s", name, diff)
		}
	}
}

// Every example in the reference parses, and is valid by the schema.
func TestReference_ExamplesParse(t *testing.T) {
	schema, profiles := compileSchema(t, spec.Schema), compileSchema(t, spec.ProfilesSchema)
	for name, page := range readPages(t) {
		found := 0
		for _, block := range yamlExample.FindAllStringSubmatch(page, -1) {
			found++
			text := strings.ReplaceAll("\n"+block[2], "\n"+block[1], "\n")
			if strings.HasPrefix(text, "\n# part of a service") {
				text = withRequiredFields(strings.TrimPrefix(text, "\n"))
			}
			if _, err := spec.ParseProfiles(name, []byte(text)); strings.Contains(text, "\nprofiles:") {
				if err != nil {
					t.Errorf("%s: %v in\n%s", name, err, text)
				}
				if err := profiles.Validate(decodeYAML(t, []byte(text))); err != nil {
					t.Errorf("%s: %v in\n%s", name, err, text)
				}
				continue
			}
			if _, err := spec.ParseConfiguration(name, []byte(text)); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, text)
			}
			if err := schema.Validate(decodeYAML(t, []byte(text))); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, text)
			}
		}
		if found == 0 && strings.Contains(page, "<!-- fields: ") {
			t.Errorf("%s has no example", name)
		}
	}
}
