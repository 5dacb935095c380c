package spec_test

import (
	"slices"
	"testing"

	"dstack/internal/spec"
)

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		``:                  nil,
		`a  b`:              {"a", "b"},
		`a 'b "c"' "d 'e'"`: {"a", `b "c"`, "d 'e'"},
		`a\ b "c\"d" '\'`:   {"a b", `c"d`, `\`},
		`"" x`:              {"", "x"},
		`"a\nb"`:            {`a\nb`},
	} {
		if got, err := spec.SplitCommand(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v", line, got, err)
		}
	}
	for _, line := range []string{`'a`, `"a`, `a\`} {
		if _, err := spec.SplitCommand(line); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
}
