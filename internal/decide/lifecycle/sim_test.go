package lifecycle_test

import (
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
)

// A run reaches its wanted replicas once the world stops misbehaving, or has
// given up with a reason; stopped, it ends and leaves nothing behind.
// `make sim` runs this for long.
func TestSim_ConvergesAndCleansUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		want := rapid.IntRange(1, 4).Draw(t, "replicas")
		w.apply(want, false)
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			for range rapid.IntRange(1, 40).Draw(t, "ticks") {
				w.tick()
			}
			if w.run.Status.Finished() || w.run.Status == dstack.RunTerminating {
				break
			}
			if rapid.Bool().Draw(t, "new revision") {
				want = rapid.IntRange(1, 4).Draw(t, "replicas")
				w.apply(want, false)
			}
		}

		w.faults = false
		for range 400 {
			w.tick()
		}
		switch w.run.Status {
		case dstack.RunActive:
			if got := w.ready(); got != want {
				t.Fatalf("%d replicas ready, want %d", got, want)
			}
		case dstack.RunFailed:
			if w.run.Reason == "" || w.run.Ending == dstack.EndNone {
				t.Fatalf("failed without a reason: %+v", w.run)
			}
			w.empty(t)
			return
		default:
			t.Fatalf("the run is %s", w.run.Status)
		}

		w.faults = true
		w.run.Stop = rapid.SampledFrom([]dstack.StopRequest{dstack.StopGrace, dstack.StopAbort}).Draw(t, "stop")
		for range rapid.IntRange(0, 20).Draw(t, "ticks") {
			w.tick()
		}
		w.faults = false
		for range 200 {
			w.tick()
		}
		if w.run.Status != dstack.RunTerminated {
			t.Fatalf("run is %s, want terminated", w.run.Status)
		}
		w.empty(t)
	})
}

// What can never become ready is given up within a bound, with its reason,
// and leaves nothing behind.
func TestSim_BrokenIsGivenUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.apply(rapid.IntRange(1, 3).Draw(t, "replicas"), true)
		for range rapid.IntRange(0, 40).Draw(t, "ticks") {
			w.tick()
		}
		w.faults = false
		for range 200 {
			w.tick()
		}
		if w.run.Status != dstack.RunFailed || w.run.Reason == "" {
			t.Fatalf("run is %s (%s), want failed with a reason", w.run.Status, w.run.Reason)
		}
		w.empty(t)
	})
}

func (w *world) empty(t *rapid.T) {
	t.Helper()
	if len(w.engine) > 0 {
		t.Fatalf("%d attempts left behind on the machine", len(w.engine))
	}
	for _, r := range w.replicas {
		if !r.Status.Finished() {
			t.Fatalf("replica %s is left %s", r.ID, r.Status)
		}
	}
}
