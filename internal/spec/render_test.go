package spec_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write what bad files are answered with")

// Each bad file in testdata stands beside the words it is refused with.
func TestBadFilesAreRefusedInTheseWords(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := spec.Parse(filepath.Base(file), read(t, file))
			problems, ok := errors.AsType[spec.Problems](err)
			if !ok {
				t.Fatalf("it is not refused with Problems, but with %v", err)
			}
			got := problems.Render(false)
			golden := strings.TrimSuffix(file, ".yml") + ".txt"
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
