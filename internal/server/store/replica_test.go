package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func TestRunStep_SetsStartedAtAndScaledAt(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(ranged("web", 2, 5), t0)
		if run = h.details(run.ID).Run; run.DesiredReplicas != 2 || !run.ScaledAt.Equal(t0) || !run.StartedAt.IsZero() {
			t.Errorf("got %+v", run)
		}
		for i, c := range []struct {
			begun          bool
			wanted         int
			scaled, begins int // seconds after t0; negative: zero time
		}{{false, 2, 0, -1}, {true, 2, 0, 1}, {true, 3, 2, 1}, {false, 3, 2, 1}, {false, 0, 4, 1}} {
			now := t0.Add(sec(i))
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Started: c.begun, DesiredReplicas: c.wanted, Due: t0}, now)
			began := time.Time{}
			if c.begins >= 0 {
				began = t0.Add(sec(c.begins))
			}
			got := h.details(run.ID).Run
			if got.DesiredReplicas != c.wanted || !got.ScaledAt.Equal(t0.Add(sec(c.scaled))) || !got.StartedAt.Equal(began) {
				t.Errorf("step %d: got %+v", i, got)
			}
			seen, err := h.s.RunFacts(t.Context(), run.ID)
			if h.noError(err); seen.DesiredReplicas != c.wanted {
				t.Errorf("step %d: a decision begins with %d", i, seen.DesiredReplicas)
			}
		}
	})
}

func TestRunStep_Drain(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		order := func(step lifecycle.RunStep, now time.Time) dstack.Replica {
			t.Helper()
			h.revise(run.ID, "again", false, now) // makes it due
			step.To, step.DesiredReplicas = dstack.RunActive, 1
			h.runStep(run.ID, step, now)
			_, r := h.reread(run.ID)
			return r
		}
		ids := []dstack.ReplicaID{r.ID}
		r = order(lifecycle.RunStep{Drain: ids, DrainTimeout: sec(30), StopReason: "replaced"}, t0.Add(sec(1)))
		if r.Status != dstack.ReplicaDraining || r.Reason != "replaced" || !r.Since.Equal(t0.Add(sec(1))) || !r.DrainDeadline.Equal(t0.Add(sec(31))) || !r.Graceful {
			t.Errorf("got %+v", r)
		}
		if !h.isDue(store.Replicas, string(r.ID), t0.Add(sec(1))) {
			t.Error("it is not due")
		}
		if again := order(lifecycle.RunStep{Drain: ids, DrainTimeout: time.Hour, StopReason: "again"}, t0.Add(sec(2))); !cmp.Equal(again, r) {
			t.Error(cmp.Diff(r, again))
		}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminating, Reason: "replaced", Due: t0}, t0.Add(sec(3)))
		_, r = h.reread(run.ID)
		if !r.Graceful || !r.DrainDeadline.Equal(t0.Add(sec(31))) || !r.Since.Equal(t0.Add(sec(3))) {
			t.Errorf("got %+v", r)
		}
		if again := order(lifecycle.RunStep{Drain: ids, DrainTimeout: time.Hour}, t0.Add(sec(4))); !cmp.Equal(again, r) {
			t.Error(cmp.Diff(r, again))
		}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(sec(5)))
		_, r = h.reread(run.ID)
		if again := order(lifecycle.RunStep{Drain: ids, DrainTimeout: time.Hour}, t0.Add(sec(6))); !cmp.Equal(again, r) {
			t.Error(cmp.Diff(r, again))
		}
	})
}

func TestRunStep_AnAbortTerminatesDrainingReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		ids := []dstack.ReplicaID{r.ID}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Drain: ids, DrainTimeout: sec(30), Due: t0}, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: ids, StopReason: "aborted by its user"}, t0.Add(sec(1)))
		if _, r = h.reread(run.ID); r.Status != dstack.ReplicaTerminating || r.Graceful || !r.Since.Equal(t0.Add(sec(1))) {
			t.Errorf("got %+v", r)
		}
	})
}

// Old and new replicas of one number coexist. A leaving replica frees its number;
// a staying one keeps it.
func TestRunStep_LeavingReplicasFreeTheirNumbers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, first := h.replica("web", t0)
		add := func(step lifecycle.RunStep) error {
			h.revise(run.ID, "again", false, t0) // makes it due
			l := h.claim(store.Runs, string(run.ID), t0)
			seen, err := h.s.RunFacts(t.Context(), run.ID)
			h.noError(err)
			step.To, step.DesiredReplicas, step.Add = dstack.RunActive, 1, newNums(0)
			err = h.s.SaveRunStep(t.Context(), l, seen, step, t0)
			if err != nil {
				h.noError(h.s.Release(t.Context(), l, t0))
			}
			return err
		}
		h.wantKind(dstack.Conflict, add(lifecycle.RunStep{}))
		h.revise(run.ID, "another shape", true, t0)
		h.noError(add(lifecycle.RunStep{}))
		h.wantKind(dstack.Conflict, add(lifecycle.RunStep{}))
		all := h.details(run.ID).Replicas
		var second dstack.Replica
		for _, r := range all {
			if r.ID != first.ID {
				second = r
			}
		}
		if first.TemplateRevision != 1 || second.Revision != 4 || second.TemplateRevision != 3 {
			t.Errorf("got %+v and %+v", first, second)
		}
		h.runStepDue(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Drain: []dstack.ReplicaID{second.ID}})
		h.noError(add(lifecycle.RunStep{}))
		if n := len(h.details(run.ID).Replicas); n != 3 {
			t.Errorf("%d replicas", n)
		}
	})
}

// runStepDue marks a run due and does runStep.
func (h *fixture) runStepDue(id dstack.RunID, step lifecycle.RunStep) {
	h.t.Helper()
	h.revise(id, "again", false, t0)
	h.runStep(id, step, t0)
}

// A replica that leaves because its cluster ends it drains as one that its run drains: gateways learn of it by a new drain sequence.
func TestReplicaStep_BeginsToDrain(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		_, r := h.ready("web", "127.0.0.1:1", t0)
		readSequence := func() int64 {
			table, err := h.s.Routes(t.Context())
			h.noError(err)
			return table.DrainSequence
		}
		before := readSequence()
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaDraining, Reason: "its pod is being deleted", DrainUntil: t0.Add(sec(30)), Due: t0}, t0)
		_, next := h.reread(r.Run)
		if next.Status != dstack.ReplicaDraining || !next.Graceful || !next.DrainDeadline.Equal(t0.Add(sec(30))) {
			t.Errorf("got %+v", next)
		}
		first := readSequence()
		if first != before+1 {
			t.Errorf("the drain sequence was %d and is %d", before, first)
		}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaDraining, Reason: "it goes on", Due: t0}, t0)
		if _, next = h.reread(r.Run); !next.DrainDeadline.Equal(t0.Add(sec(30))) || readSequence() != first {
			t.Errorf("then: %+v", next)
		}
	})
}

func TestReplicaStep_SetsReadyAt(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		for i, c := range []struct {
			to    dstack.ReplicaStatus
			ready int
		}{
			{dstack.ReplicaStarting, -1}, {dstack.ReplicaReady, 1}, {dstack.ReplicaReady, 1}, {dstack.ReplicaUnhealthy, 1}, {dstack.ReplicaReady, 1},
		} {
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: c.to, Due: t0}, t0.Add(sec(i)))
			want := time.Time{}
			if c.ready >= 0 {
				want = t0.Add(sec(c.ready))
			}
			if _, r = h.reread(run.ID); !r.ReadyAt.Equal(want) {
				t.Errorf("step %d: ready at %v", i, r.ReadyAt)
			}
		}
	})
}

func TestReplicaStep_ABlockedReplicaMarksItsRunDue(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		for i, c := range []struct{ blocked, due bool }{{false, false}, {true, true}, {true, false}, {false, true}} {
			h.runStepDue(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1})
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaWaiting, Blocked: c.blocked, Due: t0}, t0)
			if _, r = h.reread(run.ID); r.Blocked != c.blocked {
				t.Errorf("step %d: blocked %v", i, r.Blocked)
			}
			if h.isDue(store.Runs, string(run.ID), t0) != c.due {
				t.Errorf("step %d: the run's due is wrong", i)
			}
		}
	})
}

func TestReplicaFacts_DependOnTheStatus(t *testing.T) {
	probed := func(a dstack.AttemptID, ready bool) dstack.Report {
		rep := running(a, "127.0.0.1:1")
		rep.Probes = &dstack.ProbeStatus{Ready: ready, Message: "GET /health answered 500"}
		return rep
	}
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		h.reportLoad("a", 0, nil, t0)
		h.runStepDue(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 2, Add: newNums(1)})
		for _, c := range []struct {
			name           string
			do             func()
			siblings, load bool
		}{
			{"ready", func() {}, false, false},
			{"its probes fail", func() {
				h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0},
					h.mergeReports(probed(r.Attempt, false)), nil, t0)
			}, true, false},
			{"unhealthy", func() { h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaUnhealthy, Due: t0}, t0) }, true, false},
			{"and well again", func() {
				h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0},
					h.mergeReports(probed(r.Attempt, true)), nil, t0)
			}, true, false},
			{"ready again", func() { h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady, Due: t0}, t0) }, false, false},
			{"draining", func() {
				h.runStepDue(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 2, Drain: []dstack.ReplicaID{r.ID}})
			}, false, true},
		} {
			c.do()
			seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
			h.noError(err)
			if (len(seen.Siblings) == 1) != c.siblings || len(seen.Siblings) > 1 || seen.Load.Known != c.load {
				t.Errorf("%s: %d siblings, a load: %v", c.name, len(seen.Siblings), seen.Load.Known)
			}
			if c.siblings && seen.Siblings[0].Num != 1 {
				t.Errorf("%s: the sibling is %+v", c.name, seen.Siblings[0])
			}
		}
	})
}

// A waiting replica is blocked only by replicas of other templates.
func TestReplicaFacts_OfAWaitingReplicaHaveOlderSiblings(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, old := h.replica("web", t0)
		h.revise(run.ID, "two", true, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 2, Add: newNums(0, 1)}, t0)
		for _, r := range h.details(run.ID).Replicas {
			seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
			h.noError(err)
			if n := len(seen.Siblings); r.ID != old.ID && (n != 1 || seen.Siblings[0].ID != old.ID) || r.ID == old.ID && n != 2 {
				t.Errorf("replica %d of revision %d has %d siblings", r.Num, r.Revision, n)
			}
		}
	})
}

// A service that scales for months does not accumulate finished replicas.
func TestSaveRunStep_DeletesOldFinishedReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		now := t0
		for i := range 60 {
			now = now.Add(time.Second)
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(i), DesiredReplicas: 1}, now)
			for _, r := range h.details(run.ID).Replicas {
				if !r.Status.IsFinished() {
					h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, now)
				}
			}
		}
		left := h.details(run.ID).Replicas
		if len(left) != 51 || left[len(left)-1].Num != 59 || left[0].Num != 9 {
			t.Errorf("%d replicas are left, from number %d to %d", len(left), left[0].Num, left[len(left)-1].Num)
		}
	})
}

// A waiting replica is due as soon as a place is freed.
func TestSaveReplicaStep_AFreedPlaceWakesWaitingReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		_, leaves := h.ready("old", "127.0.0.1:80", t0)
		_, waits := h.replica("new", t0)
		h.replicaStep(waits.ID, lifecycle.ReplicaStep{To: dstack.ReplicaWaiting, Due: t0.Add(sec(50))}, t0)
		if h.isDue(store.Replicas, string(waits.ID), t0.Add(sec(1))) {
			t.Fatal("it is due without a reason")
		}
		h.replicaStep(leaves.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(sec(2)))
		if !h.isDue(store.Replicas, string(waits.ID), t0.Add(sec(2))) {
			t.Error("it is not due, though a replica has left its machine")
		}
	})
}
