package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestFoldEvents(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	parse := func(text string) []api.EventView {
		var events []api.EventView
		for i, word := range strings.Fields(text) {
			events = append(events, api.EventView{ID: int64(i), At: start.Add(time.Duration(i) * time.Second), Kind: dstack.EventRun,
				Message: fmt.Sprintf("%s after %d.%ds", word, i, i)})
		}
		return events
	}
	for _, c := range []struct{ events, want string }{
		{"", ""},
		{"a", "a"},
		{"a b c", "a b c"},
		{"a a a a", "a×4"},
		{"x a b a b a b y", "x a×3 b×3 y"},
		{"a b c a b c", "a×2 b×2 c×2"},
		{"a b c d a b c d", "a b c d a b c d"},
		{"a a b a a b", "a×2 a×2 b×2"},
		{"crash start crash start crash failed", "crash×2 start×2 crash failed"},
	} {
		var got []string
		total := 0
		for _, e := range foldEvents(parse(c.events)) {
			word, _, _ := strings.Cut(e.Message, " ")
			if e.count > 1 {
				word += fmt.Sprintf("×%d", e.count)
			}
			got = append(got, word)
			total += e.count
		}
		if strings.Join(got, " ") != c.want || total != len(strings.Fields(c.events)) {
			t.Errorf("%q: got %q, want %q", c.events, strings.Join(got, " "), c.want)
		}
	}
	folded := foldEvents(parse("a a a"))
	if got := folded[0].reason(); got != "a after 2.2s (3 times in 2s)" {
		t.Errorf("the reason is %q", got)
	}
}

// Two failures with different exit codes are two events: folding them would hide one.
func TestFoldEvents_KeepsExitCodes(t *testing.T) {
	var events []api.EventView
	for _, code := range []int{1, 1, 137, 137, 1} {
		events = append(events, api.EventView{Kind: dstack.EventRun, Message: fmt.Sprintf("replica 0 exited with code %d after 3s", code)})
	}
	var got []string
	for _, e := range foldEvents(events) {
		got = append(got, e.reason())
	}
	want := "replica 0 exited with code 1 after 3s (2 times in 0s), replica 0 exited with code 137 after 3s (2 times in 0s), " +
		"replica 0 exited with code 1 after 3s"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %q", got)
	}
}
