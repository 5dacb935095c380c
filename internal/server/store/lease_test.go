package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func TestClaim_NoRowIsClaimedByTwo(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		const rows, workers = 60, 6
		for i := range rows {
			h.submit(fmt.Sprintf("run-%d", i), t0)
		}
		var mu sync.Mutex
		claimed := map[string]string{}
		var group sync.WaitGroup
		for w := range workers {
			group.Go(func() {
				owner := fmt.Sprintf("here/%d", w)
				for {
					leases, err := h.s.Claim(t.Context(), store.Runs, owner, "here", t0, time.Minute, 3)
					if err != nil {
						t.Error(err)
						return
					}
					if len(leases) == 0 {
						return
					}
					mu.Lock()
					for _, l := range leases {
						if other, twice := claimed[l.ID]; twice {
							t.Errorf("%s is claimed by %s and %s", l.ID, other, owner)
						}
						claimed[l.ID] = owner
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		// PostgreSQL skips rows that another worker is claiming, so that a
		// worker may stop early; the last claim takes the rest.
		for _, l := range h.due(store.Runs, t0) {
			claimed[l.ID] = l.Owner
		}
		if len(claimed) != rows {
			t.Fatalf("%d rows are claimed, want %d", len(claimed), rows)
		}
	})
}

func TestClaim_OnlyDueFreeReachableRows(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		if h.isDue(store.Runs, string(run.ID), t0.Add(-time.Microsecond)) {
			t.Error("it is due before its time")
		}
		h.claim(store.Runs, string(run.ID), t0)
		if len(h.due(store.Runs, t0.Add(59*time.Second))) > 0 {
			t.Error("a leased row was claimed")
		}
		if next, err := h.s.NextDue(t.Context(), store.Runs, "here"); err != nil || !next.Equal(t0.Add(time.Minute)) {
			t.Errorf("next due at %v (%v), want the end of the lease", next, err)
		}
		if len(h.due(store.Runs, t0.Add(time.Minute))) != 1 {
			t.Error("a lease that has run out was not claimed")
		}

		_, r := h.replica("other", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		elsewhere, err := h.s.Claim(t.Context(), store.Instances, "there/1", "there", t0, time.Minute, 10)
		if h.noError(err); len(elsewhere) > 0 {
			t.Error("a machine that only another host reaches was claimed")
		}
		if next, err := h.s.NextDue(t.Context(), store.Instances, "there"); err != nil || !next.IsZero() {
			t.Errorf("next due at %v (%v), want never", next, err)
		}
		h.claim(store.Instances, "local-box", t0)
	})
}

// Rows are still claimed after the clock was set back.
func TestClaim_AfterTheClockWasSetBack(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		if h.isDue(store.Runs, string(run.ID), t0.Add(-time.Minute)) {
			t.Error("what is due in a minute was claimed")
		}
		h.claim(store.Runs, string(run.ID), t0.Add(-time.Hour))
		h.claim(store.Runs, string(run.ID), t0.Add(-2*time.Hour)) // the lease, too, is of another time
	})
}

func TestLease_FreedReleasedOrLost(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		id := string(run.ID)
		l := h.claim(store.Runs, id, t0)

		h.noError(h.s.FreeLeases(t.Context(), "her")) // not the whole name
		if h.isDue(store.Runs, id, t0) {
			t.Fatal("another host's lease was freed")
		}
		h.noError(h.s.FreeLeases(t.Context(), "here"))
		other, err := h.s.Claim(t.Context(), store.Runs, "there/1", "there", t0, time.Minute, 1)
		if h.noError(err); len(other) != 1 {
			t.Fatal("a freed row was not claimed")
		}

		h.noError(h.s.Release(t.Context(), l, t0)) // not ours any more
		if h.isDue(store.Runs, id, t0) {
			t.Fatal("another server's lease was given back")
		}
		seen, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		h.wantKind(dstack.Conflict, h.s.SaveRunStep(t.Context(), l, seen, lifecycle.RunStep{To: dstack.RunActive, Reason: "late"}, t0))

		h.noError(h.s.Release(t.Context(), other[0], t0.Add(time.Second)))
		if h.isDue(store.Runs, id, t0) || !h.isDue(store.Runs, id, t0.Add(time.Second)) {
			t.Error("a released row is not due at the given time")
		}
	})
}

func TestMarkDue_DuringALeaseTakesEffectAfterTheSave(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		later := t0.Add(time.Hour)

		l := h.claim(store.Runs, string(run.ID), t0.Add(time.Second))
		seen, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0.Add(2*time.Second)) // touches the run, does not write it
		h.noError(h.s.SaveRunStep(t.Context(), l, seen, lifecycle.RunStep{To: dstack.RunActive, Due: later}, t0.Add(3*time.Second)))
		if !h.isDue(store.Runs, string(run.ID), t0.Add(3*time.Second)) {
			t.Error("the touch was lost")
		}

		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Due: later}, t0.Add(4*time.Second))
		if h.isDue(store.Runs, string(run.ID), later.Add(-time.Second)) || !h.isDue(store.Runs, string(run.ID), later) {
			t.Error("an untouched run is not due when its step says")
		}
	})
}

func TestSave_RefusesAnOutdatedVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)

		l := h.claim(store.Replicas, string(r.ID), t0)
		seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
		h.noError(err)
		h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopGraceful, "admin", t0))
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{r.ID}, StopReason: "stopped", Graceful: true, Due: t0}, t0)
		h.wantKind(dstack.Conflict, h.s.SaveReplicaStep(t.Context(), l, seen, placed(dstack.Claim{}), t0))

		_, r = h.reread(run.ID)
		if r.Status != dstack.ReplicaTerminating || r.Instance != "" || r.Reason != "stopped" || !r.Graceful {
			t.Errorf("got %+v", r)
		}
		if used, err := h.s.Allocations(t.Context(), h.project.ID); err != nil || len(used) > 0 {
			t.Errorf("a refused placement left %v (%v)", used, err)
		}

		l = h.claim(store.Runs, string(run.ID), t0)
		facts, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopAbort, "admin", t0))
		h.wantKind(dstack.Conflict, h.s.SaveRunStep(t.Context(), l, facts, lifecycle.RunStep{To: dstack.RunTerminating, Reason: "late"}, t0))
	})
}

func TestFinished_IsFinal(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{GPUs: []dstack.GPU{{ID: "GPU-a"}}}), t0)
		lr := h.claim(store.Replicas, string(r.ID), t0)
		seenReplica, err := h.s.ReplicaFacts(t.Context(), r.ID)
		h.noError(err)
		h.noError(h.s.Release(t.Context(), lr, t0))
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaFailed, Reason: "broken", Due: t0}, t0)
		l := h.claim(store.Runs, string(run.ID), t0)
		seen, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		h.noError(h.s.SaveRunStep(t.Context(), l, seen, lifecycle.RunStep{To: dstack.RunFailed, Ending: dstack.EndFailed, Due: t0}, t0))

		ended, replica := h.reread(run.ID)
		if !ended.FinishedAt.Equal(t0) || !replica.FinishedAt.Equal(t0) {
			t.Errorf("finished at %v and %v", ended.FinishedAt, replica.FinishedAt)
		}
		if used, err := h.s.Allocations(t.Context(), h.project.ID); err != nil || len(used) > 0 {
			t.Errorf("a finished replica holds %v (%v)", used, err)
		}

		h.wantKind(dstack.Conflict, h.s.SaveRunStep(t.Context(), l, seen, lifecycle.RunStep{To: dstack.RunActive, Reason: "late"}, t0))
		h.wantKind(dstack.Conflict, h.s.SaveReplicaStep(t.Context(), lr, seenReplica, lifecycle.ReplicaStep{To: dstack.ReplicaReady}, t0))
		h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopAbort, "admin", t0))
		_, err = h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: runSpec("web"), User: "admin", NeedsRollout: true, Now: t0})
		h.wantKind(dstack.Conflict, err)
		far := t0.Add(1000 * time.Hour)
		if len(h.due(store.Runs, far))+len(h.due(store.Replicas, far)) > 0 {
			t.Error("something that is finished fell due")
		}
		if again, _ := h.reread(run.ID); again.Stop != dstack.StopNone || again.Status != dstack.RunFailed {
			t.Errorf("a finished run changed: %+v", again)
		}
	})
}

func TestSave_MarksRelatedRowsDue(t *testing.T) {
	now, far := t0.Add(time.Hour), t0.Add(time.Hour+time.Minute)
	silence := func(h *fixture) {
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: far}, []dstack.Report{}, nil, now)
	}
	cases := []struct {
		name  string
		wakes bool // the instance is due by itself, so that it can be acted on
		act   func(h *fixture, run dstack.Run, r dstack.Replica)
		due   []store.Kind // all that are due then
	}{
		{"nothing", false, func(*fixture, dstack.Run, dstack.Replica) {}, nil},
		{"a run is stopped", false, func(h *fixture, run dstack.Run, _ dstack.Replica) {
			h.noError(h.s.StopRun(h.ctx(), run.ID, dstack.StopGraceful, "admin", now))
		}, []store.Kind{store.Runs}},
		{"a run is revised", false, func(h *fixture, run dstack.Run, _ dstack.Replica) {
			_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: runSpec("web"), User: "admin", NeedsRollout: true, Now: now})
			h.noError(err)
		}, []store.Kind{store.Runs}},
		{"a replica is dropped", false, func(h *fixture, run dstack.Run, r dstack.Replica) {
			h.noError(h.s.StopRun(h.ctx(), run.ID, dstack.StopGraceful, "admin", now))
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Terminate: []dstack.ReplicaID{r.ID}}, now)
		}, []store.Kind{store.Replicas, store.Instances}},
		{"a run changes", false, func(h *fixture, run dstack.Run, _ dstack.Replica) {
			h.noError(h.s.StopRun(h.ctx(), run.ID, dstack.StopGraceful, "admin", now))
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating}, now)
		}, []store.Kind{store.Replicas}},
		{"a report changes", true, func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			silence(h)
		}, []store.Kind{store.Replicas}},
		{"a report stays", true, func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: far},
				h.mergeReports(), nil, now)
		}, nil},
		{"an engine does not answer", true, func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: far}, nil, errors.New("no route"), now)
		}, nil},
		{"an instance is lost", true, func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceDeleting, Due: far}, nil, nil, now)
		}, []store.Kind{store.Replicas}},
		{"a replica changes", true, func(h *fixture, _ dstack.Run, r dstack.Replica) {
			silence(h)
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaRestarting}, now)
		}, []store.Kind{store.Runs, store.Instances}},
		{"a replica has another reason", true, func(h *fixture, _ dstack.Run, r dstack.Replica) {
			silence(h)
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady, Reason: "because"}, now)
		}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, h *fixture) {
				run, r := h.ready("web", "127.0.0.1:1", t0)
				h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady}, t0)
				own := map[bool]time.Time{true: now, false: far}[c.wakes]
				h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: own},
					h.mergeReports(), nil, t0)
				c.act(h, run, r)
				for kind, id := range map[store.Kind]string{store.Runs: string(run.ID), store.Replicas: string(r.ID), store.Instances: "local-box"} {
					if got, want := h.isDue(kind, id, now), slices.Contains(c.due, kind); got != want {
						t.Errorf("%s due: %v, want %v", kind, got, want)
					}
				}
			})
		})
	}
}
