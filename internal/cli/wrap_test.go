package cli

import (
	"slices"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"

	"dstack/internal/dstack"
)

const longURL = "https://dstack.example.com/proxy/services/main/a-service-with-a-rather-long-name/"

func TestWrapText(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one two", 0, []string{"one two"}},
		{"one two three", 8, []string{"one two", "three"}},
		{"well-known words", 8, []string{"well-kno", "wn words"}},
		{"abcdefghij", 4, []string{"abcd", "efgh", "ij"}},
		{"日本語日本語", 5, []string{"日本", "語日", "本語"}},
		{"at " + longURL + " now", 20, []string{"at", longURL, "now"}},
		{"see (http://a.example/x-y-z) now", 12, []string{"see", "(http://a.example/x-y-z)", "now"}},
	} {
		if got := wrapText(c.text, c.width); !slices.Equal(got, c.want) {
			t.Errorf("%q in %d columns: got %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// A URL is never broken: where it does not fit, it has a line of its own, and the terminal
// copies no spaces into it.
func TestURLs_CanBeCopiedOnEveryWidth(t *testing.T) {
	for width := 20; width <= 130; width++ {
		s, out := newTerminalScreen(width)
		s.printInfo("   service  %s", longURL)
		s.printNote("other machines reach " + longURL + ", also without a token")
		s.printError(&dstack.Error{Message: "cannot reach the dstack server at " + longURL, Hint: "open " + longURL}, false)
		(&table{head: []string{"NAME", "URL"}, movable: []int{1}, rows: [][]string{{"web", longURL}, {"  model m at " + longURL}}}).writeTo(s.out)
		if got := strings.Count(out.String(), longURL); got != 6 {
			t.Errorf("width %d: %d of 6 URLs are whole:\n%s", width, got, out)
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if lipgloss.Width(line) > width && !strings.HasPrefix(line, "https://") {
				t.Errorf("width %d: this line is longer: %q", width, line)
			}
		}
	}
}

func TestErrors_AlignWrappedLines(t *testing.T) {
	s, out := newTerminalScreen(40)
	s.printError(&failureReport{err: &dstack.Error{Message: "cannot run web: no machine suits", Hint: "use port 8001 or stop the other run\nor wait: --retry"},
		reasons: []string{"local vm: port 8000 is used by the run other"}, output: []string{"a line"}}, false)
	want := "error: cannot run web: no machine suits\n" +
		"  why   local vm: port 8000 is used by\n" +
		"        the run other\n" +
		"          a line\n" +
		"  try   use port 8001 or stop the other\n" +
		"        run\n" +
		"        or wait: --retry\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestLiveRegion_CountsTheRowsOfLongLines(t *testing.T) {
	s, out := newTerminalScreen(40)
	region := liveRegion{to: s.err}
	region.draw([]string{"one", longURL})
	region.clear()
	if want := "\x1b[4A\r\x1b[J"; !strings.HasSuffix(out.String(), want) { // 1 + ceil(82 / 40)
		t.Errorf("got %q, want it to end with %q", out, want)
	}
}
