package lifecycle_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// drawSpec draws a configuration that fits on the machines of the world. A
// broken configuration never becomes ready.
func (w *world) drawSpec(broken bool) dstack.RunSpec {
	command := fmt.Sprintf("good %d", len(w.revisions)+1)
	if broken {
		command = fmt.Sprintf("broken %d", len(w.revisions)+1)
	}
	gpus := 0
	if w.cloud != nil || len(w.offer.Hardware.GPUs) > 0 {
		gpus = rapid.IntRange(0, 1).Draw(w.t, "GPUs each")
	}
	rs := w.specOf(command, rapid.IntRange(1, 2).Draw(w.t, "CPUs each"), gpus, spec.Replicas{})
	rs.Configuration.Replicas = w.drawRange(rs)
	return rs
}

// drawRange draws a range of replicas whose maximum fits at once.
func (w *world) drawRange(rs dstack.RunSpec) spec.Replicas {
	most := rapid.IntRange(1, w.capacity(rs)).Draw(w.t, "max replicas")
	return spec.Replicas{Min: rapid.IntRange(0, most).Draw(w.t, "min replicas"), Max: most}
}

// change makes a random change: to the load, the configuration or the machines.
func (w *world) change() {
	switch rapid.IntRange(0, 6).Draw(w.t, "change") {
	case 0, 1:
		w.load = rapid.IntRange(0, 4).Draw(w.t, "load")
	case 2:
		rs := w.run.Spec
		rs.Configuration.Replicas = w.drawRange(rs)
		w.revise(rs, 0)
	case 3, 4:
		w.revise(w.drawSpec(rapid.Bool().Draw(w.t, "broken")), 0)
	case 5:
		old := w.revisions[rapid.IntRange(0, len(w.revisions)-1).Draw(w.t, "restores")]
		w.revise(old.Spec, old.Num)
	case 6:
		w.stopServer()
	}
}

// hasConverged reports whether a run serves as desired, or has ended and left no
// replica.
func (w *world) hasConverged() bool {
	if w.run.Status.IsFinished() {
		return w.unfinished() == 0
	}
	n := w.desired()
	return w.run.Status == dstack.RunActive && w.ready() == n && w.unfinished() == n && (n == 0 || !cannotWork(w.run.Spec))
}

// Once faults stop, a run reaches its desired replicas or has failed with a
// reason. After a stop it ends and leaves nothing behind. Before, the test
// changes it, scales it and causes faults at random. `make sim` runs this test
// for a long time.
func TestSim_ConvergesAndCleansUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		conf := &w.run.Spec.Configuration
		conf.TerminationIdleTime = new(rapid.SampledFrom([]spec.Seconds{0, 30, 300}).Draw(t, "idle time"))
		if rapid.IntRange(0, 4).Draw(t, "limited") == 0 {
			conf.MaxDuration = &spec.MaxDuration{Seconds: spec.Seconds(rapid.IntRange(5, 200).Draw(t, "max duration"))}
		}
		w.load = rapid.IntRange(0, 4).Draw(t, "load")
		w.submit(w.drawSpec(false))
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			for range rapid.IntRange(1, 40).Draw(t, "ticks") {
				w.tick()
			}
			if w.run.Status.IsFinished() || w.run.Status == dstack.RunTerminating {
				break
			}
			w.change()
		}

		w.stopFaults()
		if !w.runUntil(3000, w.hasConverged) {
			t.Fatalf("the run did not converge: %s", w.dump())
		}
		if w.run.Status.IsFinished() && (w.run.Reason == "" || w.run.Ending == dstack.EndNone) {
			t.Fatalf("it ended without a reason: %+v", w.run)
		}
		if !w.run.Status.IsFinished() {
			w.faults = true
			w.stop(rapid.SampledFrom([]dstack.StopRequest{dstack.StopGraceful, dstack.StopAbort}).Draw(t, "stop"))
			for range rapid.IntRange(0, 20).Draw(t, "ticks") {
				w.tick()
			}
			w.stopFaults()
		}
		w.length = 2 * time.Second
		if !w.runUntil(1000, func() bool { return w.run.Status.IsFinished() && w.isEmpty() }) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
		if w.run.Stop != dstack.StopNone && w.run.Status != dstack.RunTerminated {
			t.Fatalf("the run is %s, want terminated", w.run.Status)
		}
	})
}

// A run that can never become ready fails within a limited time, with a reason,
// and leaves nothing behind.
func TestSim_BrokenIsGivenUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		rs := w.drawSpec(true)
		rs.Configuration.Replicas = fixed(max(1, rs.Configuration.Replicas.Min))
		w.submit(rs)
		for range rapid.IntRange(0, 40).Draw(t, "ticks") {
			w.tick()
		}
		w.stopFaults()
		w.runUntil(2000, w.hasConverged)
		if w.run.Status != dstack.RunFailed || w.run.Reason == "" {
			t.Fatalf("the run is %s (%s), want failed with a reason", w.run.Status, w.run.Reason)
		}
		w.length = 2 * time.Second
		if !w.runUntil(1000, w.isEmpty) {
			t.Fatalf("something is left behind: %s", w.dump())
		}
	})
}

// Without faults, no change lowers the number of serving replicas or fails a
// request: good revisions are rolled out, broken revisions are rolled back.
func TestSim_UpdatesLowerNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		long, most := 300, 8
		if rapid.IntRange(0, 3).Draw(t, "rented machines") == 0 {
			w.cloud, long, most = newCloud(w), 600, 3
		} else {
			w.addOwned(20, 0, false)
		}
		wanted := rapid.IntRange(1, most).Draw(t, "replicas")
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 60 {
			w.tick()
		}
		good := w.run.Revision
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			command := rapid.SampledFrom([]string{"good", "broken"}).Draw(t, "update")
			w.revise(w.specOf(fmt.Sprintf("%s %d", command, len(w.revisions)+1), 1, 0, fixed(wanted)), 0)
			ticks := rapid.SampledFrom([]int{rapid.IntRange(1, 30).Draw(t, "ticks"), long}).Draw(t, "for")
			for range ticks {
				w.tick()
				if n := len(w.routes()); n < wanted {
					t.Fatalf("%d replicas serve, want %d: %s", n, wanted, w.dump())
				}
			}
			if !w.run.ReadyAt.IsZero() {
				good = w.run.Revision
			}
			if ticks == long && (w.run.Revision != good || cannotWork(w.run.Spec) || w.run.ReadyAt.IsZero()) {
				t.Fatalf("revision %d is the present one, the last good one is %d: %s", w.run.Revision, good, w.dump())
			}
		}
		for range long {
			w.tick()
		}
		if cannotWork(w.run.Spec) || w.ready() != wanted {
			t.Fatalf("%d ready of revision %d", w.ready(), w.run.Revision)
		}
		if w.web.failed > 0 || w.web.answered == 0 {
			t.Fatalf("%d requests failed, %d did not", w.web.failed, w.web.answered)
		}
	})
}
