package spec_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write what bad files are answered with")

// Each bad file in testdata stands beside the words it is refused with.
func TestBadFilesAreRefusedInTheseWords(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Ext(file) == ".txt" })
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			err := refusal(filepath.Base(file), read(t, file))
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok {
				t.Fatalf("it is not refused with Problems, but with %v", err)
			}
			got := problems.Render(false)
			golden := strings.TrimSuffix(file, ".yml") + ".txt" // .bad.txt, .bad.env.txt
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(read(t, golden)), got); diff != "" {
				t.Errorf("words (-expected +got):\n%s", diff)
			}
		})
	}
}

// refusal is what somebody who applies a file would be told of it.
func refusal(name string, text []byte) error {
	if strings.HasSuffix(name, ".env") {
		_, err := spec.ParseEnvFile(name, text)
		return err
	}
	if strings.HasPrefix(name, "profiles") {
		_, err := spec.ParseProfiles(name, text)
		return err
	}
	c, err := spec.Read(name, text)
	if err != nil {
		return err
	}
	problems := c.Unsupported()
	if s, ok := c.(*spec.Service); ok {
		none := func(string) (string, bool) { return "", false }
		problems = append(problems, spec.ResolveEnv(s, nil, none)...)
		problems = append(problems, spec.Interpolate(s, nil, none)...)
		if wrong, ok := errors.AsType[spec.Problem](spec.CheckName(string(s.Name))); ok && s.Name != "" {
			problems = append(problems, wrong)
		}
	}
	return spec.Locate(name, text, problems)
}
