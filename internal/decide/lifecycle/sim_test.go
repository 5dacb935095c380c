package lifecycle_test

import (
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
)

// A run reaches its wanted replicas once the world stops misbehaving, or has
// given up with a reason; stopped, it ends and leaves nothing behind. In
// between it is changed, scaled and broken at random.
// `make sim` runs this for long.
func TestSim_ConvergesAndCleansUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		most := min(4, w.room)
		w.apply(rapid.IntRange(1, most).Draw(t, "replicas"), true, false)
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			for range rapid.IntRange(1, 40).Draw(t, "ticks") {
				w.tick()
			}
			if w.run.Status.IsFinished() || w.run.Status == dstack.RunTerminating {
				break
			}
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				w.wanted = rapid.IntRange(0, most).Draw(t, "scaled to")
			case 1:
				w.apply(rapid.IntRange(1, most).Draw(t, "replicas"), false, false)
			case 2:
				w.apply(rapid.IntRange(1, most).Draw(t, "replicas"), true, rapid.Bool().Draw(t, "broken"))
			}
		}

		w.faults = false
		for range 600 {
			w.tick()
		}
		switch w.run.Status {
		case dstack.RunActive:
			if w.broken(w.run.TemplateRevision) && w.wanted > 0 {
				t.Fatalf("a revision that cannot work is the present one: %+v", w.run)
			}
			if got := w.ready(); got != w.wanted {
				t.Fatalf("%d replicas ready, want %d of revision %d", got, w.wanted, w.run.Revision)
			}
			if all, _ := w.placed(w.run.TemplateRevision); all != w.wanted {
				t.Fatalf("%d replicas placed, want %d", all, w.wanted)
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
		w.apply(rapid.IntRange(1, min(3, w.room)).Draw(t, "replicas"), true, true)
		for range rapid.IntRange(0, 40).Draw(t, "ticks") {
			w.tick()
		}
		w.faults = false
		for range 300 {
			w.tick()
		}
		if w.run.Status != dstack.RunFailed || w.run.Reason == "" {
			t.Fatalf("run is %s (%s), want failed with a reason", w.run.Status, w.run.Reason)
		}
		w.empty(t)
	})
}

// In a world without faults, no change lowers what serves nor fails a
// request: good revisions take over, broken ones are rolled back.
func TestSim_UpdatesLowerNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.faults, w.room = false, 20
		wanted := rapid.IntRange(1, 8).Draw(t, "replicas")
		w.apply(wanted, true, false)
		for range 40 {
			w.tick()
		}
		good := w.run.Revision
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			broken := rapid.Bool().Draw(t, "broken")
			w.apply(wanted, true, broken)
			ticks := rapid.SampledFrom([]int{rapid.IntRange(1, 30).Draw(t, "ticks"), 300}).Draw(t, "for")
			for range ticks {
				w.tick()
				if n := len(w.routes()); n < wanted {
					t.Fatalf("%d replicas serve, want %d", n, wanted)
				}
			}
			if !w.run.ReadyAt.IsZero() {
				good = w.run.Revision
			}
			if ticks == 300 && (w.run.Revision != good || w.broken(w.run.TemplateRevision) || w.run.ReadyAt.IsZero()) {
				t.Fatalf("revision %d is the present one, the last good one is %d: %+v", w.run.Revision, good, w.run)
			}
		}
		for range 300 {
			w.tick()
		}
		if w.broken(w.run.TemplateRevision) || w.ready() != wanted {
			t.Fatalf("%d ready of revision %d", w.ready(), w.run.Revision)
		}
		if w.web.failed > 0 || w.web.answered == 0 {
			t.Fatalf("%d requests failed, %d did not", w.web.failed, w.web.answered)
		}
	})
}

func (w *world) empty(t *rapid.T) {
	t.Helper()
	if len(w.engine) > 0 {
		t.Fatalf("%d attempts left behind on the machine", len(w.engine))
	}
	for _, r := range w.replicas {
		if !r.Status.IsFinished() {
			t.Fatalf("replica %s is left %s", r.ID, r.Status)
		}
	}
}
