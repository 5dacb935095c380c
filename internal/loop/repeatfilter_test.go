package loop_test

import (
	"testing"
	"time"

	"dstack/internal/loop"
)

func TestRepeatFilter_LogsWithGrowingPauses(t *testing.T) {
	var f loop.RepeatFilter
	start := time.Unix(1_700_000_000, 0)
	var logged []time.Duration
	total := 0
	for second := range 4 * 3600 {
		now := start.Add(time.Duration(second) * time.Second)
		if skipped, ok := f.Admit("instance i1", "refused", now); ok {
			logged = append(logged, now.Sub(start))
			total += skipped + 1
		}
	}
	want := []time.Duration{0, 1, 3, 7, 15, 31, 63, 123, 183}
	if len(logged) != len(want) {
		t.Fatalf("logged at %v", logged)
	}
	for i := range want {
		if logged[i] != want[i]*time.Minute {
			t.Errorf("line %d after %v, want %v", i, logged[i], want[i]*time.Minute)
		}
	}
	if total != 183*60+1 {
		t.Errorf("the lines account for %d failures", total)
	}
}

func TestRepeatFilter_LogsAtOnce(t *testing.T) {
	var f loop.RepeatFilter
	now := time.Unix(1_700_000_000, 0)
	admit := func(key, text string) bool { _, ok := f.Admit(key, text, now); return ok }
	if !admit("a", "x") || admit("a", "x") {
		t.Error("the first failure is logged, and the second is not")
	}
	if !admit("b", "x") {
		t.Error("the same failure of something else is logged")
	}
	if !admit("a", "y") {
		t.Error("another failure is logged")
	}
	if !f.Forget("a") || f.Forget("a") || !admit("a", "y") {
		t.Error("a failure after a success is logged")
	}
}
