package openai

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// cutAtStop returns the text up to the first stop text, found by testing every
// prefix.
func cutAtStop(text string, stops []string) (string, bool) {
	for end := range len(text) + 1 {
		longest := 0
		for _, stop := range stops {
			if strings.HasSuffix(text[:end], stop) {
				longest = max(longest, len(stop))
			}
		}
		if longest > 0 {
			return text[:end-longest], true
		}
	}
	return text, false
}

func TestStopFilter(t *testing.T) {
	some := rapid.StringOfN(rapid.RuneFrom([]rune("abé😀")), 0, 20, -1)
	stop := rapid.StringOfN(rapid.RuneFrom([]rune("abé😀")), 1, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(some).Draw(t, "pieces")
		stops := rapid.SliceOfN(stop, 0, 4).Draw(t, "stops")
		s := stopFilter{stops: stops}
		var got strings.Builder
		for _, piece := range pieces {
			out := s.addText(piece)
			if !utf8.ValidString(out) {
				t.Fatalf("a letter was split: %q", out)
			}
			got.WriteString(out)
			if s.held != "" && !beginsOne(s.held, stops) {
				t.Fatalf("%q is held back for nothing", s.held)
			}
		}
		got.WriteString(s.flush())
		want, ended := cutAtStop(strings.Join(pieces, ""), stops)
		if got.String() != want || s.ended != ended {
			t.Fatalf("got %q, %v; want %q, %v", got.String(), s.ended, want, ended)
		}
	})
}

func beginsOne(text string, stops []string) bool {
	for _, stop := range stops {
		if strings.HasPrefix(stop, text) {
			return true
		}
	}
	return false
}
