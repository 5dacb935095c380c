package logs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/server/logs"
)

// TestFindTail_MatchesReading compares every tail with the end of what Read yields.
func TestFindTail_MatchesReading(t *testing.T) {
	s := logs.New(t.TempDir(), 64<<10) // a file has a few KiB, so there are several
	key := testKey("a")
	for i := range 400 {
		text := fmt.Sprint("line ", i)
		if i%50 == 7 {
			text = strings.Repeat("long ", 700) + "\\\n" // longer than a file's usual line, with escapes
		}
		mustAppend(t, s, key, t0.Add(time.Duration(i)*time.Second), text)
	}
	for _, since := range []time.Time{{}, t0.Add(100500 * time.Millisecond), t0.Add(390 * time.Second), t0.Add(time.Hour)} {
		for _, until := range []time.Time{{}, t0.Add(200 * time.Second), t0} {
			all := lineTexts(readBetween(t, s, key, since, until))
			for _, n := range []int{0, 1, 2, 9, 100, 399, 400, 5000} {
				start, found, err := s.FindTail(t.Context(), key, since, until, n)
				if err != nil {
					t.Fatal(err)
				}
				got, want := lineTexts(readBetween(t, s, key, start, until)), all[len(all)-min(n, len(all)):]
				if !slices.Equal(got, want) || found != len(want) {
					t.Errorf("the last %d after %v before %v: %d (%d) lines, want %d", n, since, until, len(got), found, len(want))
				}
			}
		}
	}
	if start, found, err := s.FindTail(t.Context(), testKey("unknown"), t0, time.Time{}, 3); err != nil || found != 0 || !start.Equal(t0) {
		t.Errorf("an unknown attempt: %v, %d, %v", start, found, err)
	}
}
