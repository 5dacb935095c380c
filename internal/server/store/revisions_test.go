package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// revise gives a run a revision with this command.
func (h *fixture) revise(id dstack.RunID, command string, rolls bool, now time.Time) dstack.Run {
	h.t.Helper()
	present := h.details(id).Run
	rs := runSpec(present.Name)
	rs.Configuration.Commands = []string{command}
	run, err := h.s.ReviseRun(h.ctx(), id, store.Revision{Revision: present.Revision, Spec: rs, User: "bob", NeedsRollout: rolls, Now: now})
	h.noError(err)
	return run
}

// revisionState is what tests compare of a run's revisions.
type revisionState struct {
	Revision, Newest, Shape, Proven int
	Ready                           bool
	Command                         string
}

func revisionStateOf(run dstack.Run) revisionState {
	return revisionState{run.Revision, run.LatestRevision, run.TemplateRevision, run.StableRevision, !run.ReadyAt.IsZero(), run.Spec.Configuration.Commands[0]}
}

func (h *fixture) revisions(id dstack.RunID) map[int]dstack.RevisionStatus {
	h.t.Helper()
	all, err := h.s.Revisions(h.ctx(), id)
	h.noError(err)
	got := map[int]dstack.RevisionStatus{}
	for i, rev := range all {
		if got[rev.Num] = rev.Status; i > 0 && all[i-1].Num <= rev.Num {
			h.t.Errorf("revision %d comes after %d", rev.Num, all[i-1].Num)
		}
	}
	return got
}

const (
	pending = dstack.RevisionPending
	served  = dstack.RevisionReady
	failed  = dstack.RevisionFailed
)

// A run through rollouts, a failure and a rollback: the present and the stable
// revision, and the status of each.
func TestRevisions_RolloutFailureAndRollback(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		step := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Due: t0}
		ready := step
		ready.Ready = true
		back := step
		back.Rollback = &lifecycle.Rollback{ToRevision: 3, Reason: "replica 1 exited with code 1", Replica: 1, LastOutput: []string{"bad \xff", "bye"}}
		type statuses = map[int]dstack.RevisionStatus
		for _, c := range []struct {
			name string
			do   func()
			want revisionState
			are  statuses
		}{
			{"submitted", func() {}, revisionState{1, 1, 1, 0, false, "serve"}, statuses{1: pending}},
			{"in place before it served", func() { h.revise(run.ID, "two", false, t0) }, revisionState{2, 2, 1, 0, false, "two"}, statuses{1: pending, 2: pending}},
			{"serves", func() { h.runStep(run.ID, ready, t0) }, revisionState{2, 2, 1, 0, true, "two"}, statuses{1: served, 2: served}},
			{"in place", func() { h.revise(run.ID, "three", false, t0) }, revisionState{3, 3, 1, 0, true, "three"}, statuses{1: served, 2: served, 3: served}},
			{"rolls", func() { h.revise(run.ID, "four", true, t0) }, revisionState{4, 4, 4, 3, false, "four"}, statuses{1: served, 2: served, 3: served, 4: pending}},
			{"rolls before that has served", func() { h.revise(run.ID, "five", true, t0) }, revisionState{5, 5, 5, 3, false, "five"}, statuses{1: served, 2: served, 3: served, 4: pending, 5: pending}},
			{"fails", func() { h.runStep(run.ID, back, t0) }, revisionState{3, 5, 1, 0, true, "three"}, statuses{1: served, 2: served, 3: served, 4: failed, 5: failed}},
			{"the number of a failed revision is not used again", func() { h.revise(run.ID, "six", true, t0) }, revisionState{6, 6, 6, 3, false, "six"}, statuses{1: served, 2: served, 3: served, 4: failed, 5: failed, 6: pending}},
			{"serves again", func() { h.runStep(run.ID, ready, t0) }, revisionState{6, 6, 6, 3, true, "six"}, statuses{1: served, 2: served, 3: served, 4: failed, 5: failed, 6: served}},
		} {
			c.do()
			w := h.details(run.ID)
			if diff := cmp.Diff(c.want, revisionStateOf(w.Run)); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
			if diff := cmp.Diff(c.are, h.revisions(run.ID)); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
			seen, err := h.s.RunFacts(t.Context(), run.ID)
			if h.noError(err); !cmp.Equal(revisionStateOf(seen.Run), c.want) {
				t.Errorf("%s: a decision sees %+v", c.name, revisionStateOf(seen.Run))
			}
			if (w.Failed != nil) != (c.name == "fails") {
				t.Errorf("%s: the newest revision that failed: %+v", c.name, w.Failed)
			}
			if w.Failed != nil && (w.Failed.Num != 5 || w.Failed.Reason != "replica 1 exited with code 1" || w.Failed.Replica != 1 ||
				!cmp.Equal(w.Failed.LastOutput, []string{"bad \uFFFD", "bye"}) || w.Failed.Spec.Configuration.Commands[0] != "five") {
				t.Errorf("got %+v", w.Failed)
			}
		}
		old, err := h.s.Revision(t.Context(), run.ID, 2)
		if h.noError(err); old.User != "bob" || old.TemplateRevision != 1 || old.Spec.Configuration.Commands[0] != "two" || !old.At.Equal(t0) {
			t.Errorf("got %+v", old)
		}
		_, err = h.s.Revision(t.Context(), run.ID, 7)
		h.wantKind(dstack.NotFound, err)
		_, err = h.s.Revisions(t.Context(), "nothing")
		h.wantKind(dstack.NotFound, err)
	})
}

// A rollback also restores the columns that are stored unencrypted.
func TestRevisions_RollbackRestoresThePublicSpec(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.ready("web", "127.0.0.1:1", t0)
		first := h.routes().Routes[0]
		rs := ranged("web", 3, 5)
		rs.Configuration.Auth, rs.Configuration.Model = !rs.Configuration.Auth, nil
		rs.Configuration.RateLimits = []spec.RateLimit{{Prefix: "/", Key: spec.RateLimitKey{Type: "ip_address"}, RPS: 2}}
		later := t0.Add(time.Minute)
		got, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: rs, User: "bob", NeedsRollout: true, Restores: 7, Now: later})
		h.noError(err)
		if got.DesiredReplicas != 3 || !got.ScaledAt.Equal(later) {
			t.Errorf("%d are wanted since %v", got.DesiredReplicas, got.ScaledAt)
		}
		if r := h.routes().Routes[0]; r.Auth == first.Auth || r.Model != "" || len(r.Rules.Limits) != 1 {
			t.Errorf("the route is %+v", r)
		}
		if rev, err := h.s.Revision(t.Context(), run.ID, 2); err != nil || rev.Restores != 7 {
			t.Errorf("got %+v, %v", rev, err)
		}
		later = later.Add(time.Minute)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 3, Rollback: &lifecycle.Rollback{ToRevision: 1}}, later)
		back := h.details(run.ID).Run
		if back.User != "admin" || back.DesiredReplicas != 1 || !back.ScaledAt.Equal(later) || !back.ReadyAt.Equal(later) {
			t.Errorf("got %+v", back)
		}
		if diff := cmp.Diff(first, h.routes().Routes[0]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRevisions_DesiredReplicasStayInTheRange(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		for i, c := range []struct{ min, max, want int }{{0, 4, 1}, {2, 4, 2}, {1, 1, 1}, {0, 0, 0}, {0, 3, 0}, {3, 3, 3}} {
			rs := ranged("web", c.min, c.max)
			now := t0.Add(time.Duration(i) * time.Second)
			before := h.details(run.ID).Run
			got, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: i + 1, Spec: rs, Now: now})
			if h.noError(err); got.DesiredReplicas != c.want || got.ScaledAt.Equal(now) != (before.DesiredReplicas != c.want || i == 0) {
				t.Errorf("%d..%d: %d wanted since %v", c.min, c.max, got.DesiredReplicas, got.ScaledAt)
			}
			if diff := cmp.Diff(h.details(run.ID).Run.DesiredReplicas, got.DesiredReplicas); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestRevisions_UnneededOldOnesAreDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.replica("web", t0) // of revision 1, and lives
		for range 103 {
			h.revise(run.ID, "next", false, t0)
		}
		got := h.revisions(run.ID)
		for num, want := range map[int]bool{1: true, 2: false, 4: false, 5: true, 104: true} {
			if _, there := got[num]; there != want {
				t.Errorf("revision %d is there: %v", num, there)
			}
		}
	})
}

// A replica of an older template keeps the spec of its revision.
func TestRevisions_AReplicaRunsItsOwnRevision(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		run, r := h.ready("web", "127.0.0.1:1", t0)
		command := func() (ofReplica, ofPlaced string) {
			t.Helper()
			seen, err := h.s.ReplicaFacts(ctx, r.ID)
			h.noError(err)
			on, err := h.s.InstanceFacts(ctx, "local-box")
			if h.noError(err); len(on.Replicas) != 1 {
				t.Fatalf("%d replicas are placed", len(on.Replicas))
			}
			return seen.Run.Spec.Configuration.Commands[0], on.Replicas[0].Run.Spec.Configuration.Commands[0]
		}
		for _, c := range []struct {
			revision string
			rolls    bool
			want     string
		}{{"two", false, "two"}, {"three", true, "serve"}, {"four", false, "serve"}} {
			h.revise(run.ID, c.revision, c.rolls, t0)
			for range 2 { // read, then known
				if one, other := command(); one != c.want || other != c.want {
					t.Errorf("at %q it is %q, and %q on its machine; want %q", c.revision, one, other, c.want)
				}
			}
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Rollback: &lifecycle.Rollback{ToRevision: 2}}, t0)
		if one, other := command(); one != "two" || other != "two" {
			t.Errorf("after a rollback it is %q, and %q on its machine", one, other)
		}
	})
}

// An unreadable revision affects only its own replicas.
func TestRevisions_UnreadableSpec(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Ready: true, Due: t0}, t0)
		h.revise(run.ID, "two", true, t0)
		for _, how := range []string{"UPDATE revisions SET spec = 'enc:v1:00000000:AAAA' WHERE num = 1", "DELETE FROM revisions WHERE num = 1"} {
			_, err := h.openRaw().ExecContext(ctx, how)
			h.noError(err)
			seen, err := h.s.InstanceFacts(ctx, "local-box")
			h.noError(err)
			if commands := lifecycle.PlanEngineCommands(seen.Instance, seen.Replicas, nil); len(seen.Replicas) != 1 || len(commands) != 0 {
				t.Errorf("%s: the engine gets commands %v", how, commands)
			}
			if _, err := h.s.ReplicaFacts(ctx, r.ID); err == nil {
				t.Errorf("%s: its replica goes on", how)
			}
			if _, err := h.s.RunFacts(ctx, run.ID); err != nil {
				t.Errorf("%s: %v", how, err)
			}
			all, err := h.s.Revisions(ctx, run.ID)
			if h.noError(err); all[0].Num != 2 || all[0].Reason != "" || len(all) == 2 && all[1].Reason == "" {
				t.Errorf("%s: got %+v", how, all)
			}
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Drain: []dstack.ReplicaID{r.ID}, DrainTimeout: time.Second}, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminating, Due: t0}, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
	})
}

func TestSecrets_OfRevisions(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.submit("a", t0)
		h.submit("b", t0)
		_, err := h.openRaw().ExecContext(t.Context(), "UPDATE revisions SET spec = (SELECT spec FROM runs WHERE name = 'a')")
		h.noError(err)
		runs, err := h.s.Runs(t.Context(), store.RunQuery{})
		h.noError(err)
		for _, run := range runs {
			if _, err := h.s.Revision(t.Context(), run.ID, 1); (err == nil) != (run.Name == "a") {
				t.Errorf("%s: %v", run.Name, err)
			}
		}
	})
}

// Restoring the stable revision during a rollout keeps the replicas that still
// serve, and adds none in their place.
func TestRevisions_RestoringDuringARolloutKeepsServingReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.ready("web", "127.0.0.1:80", t0)
		first := h.details(run.ID).Run
		h.revise(run.ID, "other", true, t0)
		if got := h.details(run.ID).Run; got.StableRevision != first.Revision || got.TemplateRevision == first.TemplateRevision || !got.ReadyAt.IsZero() {
			t.Fatalf("updating: %+v", got)
		}
		back, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 2, Spec: first.Spec, User: "admin", NeedsRollout: true, Restores: 1, Now: t0})
		h.noError(err)
		if back.Revision != 3 || back.TemplateRevision != first.TemplateRevision || back.StableRevision != 0 || back.ReadyAt.IsZero() {
			t.Errorf("went back: %+v", back)
		}
		if got := h.revisions(run.ID)[3]; got != dstack.RevisionReady {
			t.Errorf("revision 3 is %s", got)
		}
	})
}

// A replica that has just become ready has served, even before its run's next
// decision.
func TestRevisions_AReadyReplicaHasServed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.ready("web", "127.0.0.1:80", t0)
		h.revise(run.ID, "other", true, t0)
		if got := h.details(run.ID).Run; got.StableRevision != 1 {
			t.Errorf("got %+v", got)
		}
		if got := h.revisions(run.ID); got[1] != served || got[2] != pending {
			t.Errorf("the history has %v", got)
		}
	})
}

// A revision that began to serve only after a newer one was applied is ready
// in the history, before and after a rollback to it.
func TestRevisions_ALateServingRevisionIsReady(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		h.revise(run.ID, "two", true, t0)
		step := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Due: t0}
		late, back := step, step
		late.StableRevision = 1
		h.runStep(run.ID, late, t0)
		if got := h.revisions(run.ID); got[1] != served || got[2] != pending {
			t.Errorf("when it serves: %v", got)
		}
		back.Rollback = &lifecycle.Rollback{ToRevision: 1, Reason: "replica 0 exited with code 1"}
		h.runStep(run.ID, back, t0)
		if got := h.revisions(run.ID); got[1] != served || got[2] != failed {
			t.Errorf("after the rollback: %v", got)
		}
	})
}
