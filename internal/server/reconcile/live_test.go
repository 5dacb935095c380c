package reconcile_test

import (
	"slices"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// scaled makes a service scale between two numbers of replicas, without delays.
func scaled(minReplicas, maxReplicas int) func(*spec.Service) {
	return func(s *spec.Service) {
		s.Replicas = spec.Replicas{Min: minReplicas, Max: maxReplicas}
		s.Scaling = &spec.Scaling{Metric: spec.MetricRPS, Target: 1}
	}
}

// requestsPerSecond returns a load.
func requestsPerSecond(rps int) dstack.RunLoad {
	return dstack.RunLoad{Window: time.Minute, Watched: time.Minute, Requests: 60 * rps}
}

func (r *rig) events(kind dstack.EventKind) (all []dstack.Event) {
	r.t.Helper()
	events, err := r.store.Events(r.t.Context(), r.project.ID, "web", 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(events, func(e dstack.Event) bool { return e.Kind != kind })
}

func TestPasses_ScaleWithTheLoadAndToZeroWithoutOne(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submitLike(scaled(0, 4))
	r.until(id, "active", func(w store.RunDetails) bool { return w.Run.Status == dstack.RunActive })
	if n := r.engine.count(); n != 0 {
		t.Fatalf("%d attempts of a service without requests", n)
	}
	r.counts(id, dstack.RunLoad{Window: time.Minute, Watched: time.Minute, Requests: 1, Held: 1})
	r.until(id, "scaled up from zero", ready(1))
	r.counts(id, requestsPerSecond(3))
	r.until(id, "scaled up", ready(3))
	r.counts(id, requestsPerSecond(0))
	r.until(id, "scaled to zero", func(w store.RunDetails) bool { return w.Run.DesiredReplicas == 0 && r.engine.count() == 0 })
	if n := len(r.events(dstack.EventScaled)); n < 3 {
		t.Errorf("%d events of scaling", n)
	}
}

// Of several replicas the one with the fewest requests in flight is drained, and
// it is terminated when they have ended.
func TestPasses_DrainRequestsInFlight(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submitLike(scaled(1, 2))
	r.counts(id, requestsPerSecond(2))
	w := r.until(id, "scaled up", ready(2))
	busy, idle := w.Replicas[0], w.Replicas[1]
	load := dstack.RunLoad{Window: time.Minute, Watched: time.Minute, Requests: 1, InFlight: 3, Replicas: map[dstack.ReplicaID]int{busy.ID: 2, idle.ID: 1}}
	r.counts(id, load)
	status := func(id dstack.ReplicaID, s dstack.ReplicaStatus) func(store.RunDetails) bool {
		return func(w store.RunDetails) bool {
			return slices.ContainsFunc(w.Replicas, func(r dstack.Replica) bool { return r.ID == id && r.Status == s })
		}
	}
	r.until(id, "draining", status(idle.ID, dstack.ReplicaDraining))
	time.Sleep(500 * time.Millisecond) // longer than any pass takes
	if w := r.until(id, "there", func(store.RunDetails) bool { return true }); !status(idle.ID, dstack.ReplicaDraining)(w) || !status(busy.ID, dstack.ReplicaReady)(w) {
		t.Fatalf("replicas %+v", w.Replicas)
	}
	load.InFlight, load.Replicas = 2, map[dstack.ReplicaID]int{busy.ID: 2}
	r.counts(id, load)
	r.until(id, "gone", status(idle.ID, dstack.ReplicaTerminated))
}

// A revision that does not become ready is rolled back, and the replicas that
// serve stay.
func TestPasses_RollBackARevisionThatDoesNotBecomeReady(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(2)
	w := r.until(id, "served", func(w store.RunDetails) bool { return readyCount(w) == 2 && !w.Run.ReadyAt.IsZero() })
	first := []dstack.AttemptID{w.Replicas[0].Attempt, w.Replicas[1].Attempt}
	r.engine.with(func(e *fakeEngine) { e.refuse = "there is no image x" })
	bad := w.Run.Spec
	bad.Configuration.Commands = []string{"other"}
	if _, err := r.store.ReviseRun(t.Context(), id, store.Revision{Revision: 1, Spec: bad, User: "admin", NeedsRollout: true, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r.wake()
	w = r.until(id, "rolled back", func(w store.RunDetails) bool { return w.Failed != nil })
	if w.Run.Revision != 1 || w.Run.LatestRevision != 2 || w.Failed.Num != 2 || w.Failed.Reason != "there is no image x" || w.Run.Spec.Configuration.Commands[0] == "other" {
		t.Errorf("run %+v, failed %+v", w.Run, w.Failed)
	}
	for _, rep := range w.Replicas {
		if rep.Revision == 1 && (rep.Status != dstack.ReplicaReady || !slices.Contains(first, rep.Attempt)) {
			t.Errorf("a replica that served was replaced: %+v", rep)
		}
	}
	if events := r.events(dstack.EventRolledBack); len(events) != 1 || events[0].From != "2" || events[0].To != "1" {
		t.Errorf("events %+v", events)
	}
}

// A revision that fails after it replaced some replicas is undone: the replicas
// of the old revision come back, and its own are terminated.
func TestPasses_RollBackAPartialRollout(t *testing.T) {
	r := newRig(t)
	r.begin(lifecycle.Limits{})
	id := r.submit(4)
	w := r.until(id, "served", func(w store.RunDetails) bool { return readyCount(w) == 4 && !w.Run.ReadyAt.IsZero() })
	r.engine.with(func(e *fakeEngine) { e.refuseAfter, e.refuse = len(e.started)+1, "there is no image x" })
	bad := w.Run.Spec
	bad.Configuration.Commands = []string{"other"}
	if _, err := r.store.ReviseRun(t.Context(), id, store.Revision{Revision: 1, Spec: bad, User: "admin", NeedsRollout: true, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r.wake()
	r.until(id, "rolled back", func(w store.RunDetails) bool { return w.Failed != nil })
	r.engine.with(func(e *fakeEngine) { e.refuse = "" })
	r.until(id, "as it was", func(w store.RunDetails) bool {
		live := 0
		for _, rep := range w.Replicas {
			if !rep.Status.IsFinished() {
				live++
			}
		}
		return live == 4 && !slices.ContainsFunc(w.Replicas, func(rep dstack.Replica) bool {
			return !rep.Status.IsFinished() && (rep.Revision != 1 || rep.Status != dstack.ReplicaReady)
		})
	})
}
