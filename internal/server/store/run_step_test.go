package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

var replicaStatuses = []dstack.ReplicaStatus{
	dstack.ReplicaWaiting, dstack.ReplicaStarting, dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaRestarting,
	dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed,
}

// The store drains and terminates many replicas in one SQL statement. In every
// status the result is that of lifecycle for one replica.
func TestRunStep_SQLMatchesLifecycle(t *testing.T) {
	later := t0.Add(sec(10))
	drain := lifecycle.RunStep{To: dstack.RunActive, DrainTimeout: sec(30), Graceful: true, StopReason: "drained"}
	terminate := lifecycle.RunStep{To: dstack.RunActive, Graceful: true, StopReason: "terminated"}
	abort := lifecycle.RunStep{To: dstack.RunTerminating, StopReason: "aborted"}
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		raw := h.openRaw()
		for name, c := range map[string]struct {
			step  lifecycle.RunStep
			drain bool
		}{"drain": {drain, true}, "terminate": {terminate, false}, "abort": {abort, false}} {
			for _, graceful := range []bool{false, true} {
				for _, status := range replicaStatuses {
					t.Run(fmt.Sprintf("%s/%s/graceful=%v", name, status, graceful), func(t *testing.T) {
						h := &fixture{t: t, s: h.s}
						h.noError(h.s.MarkDue(h.ctx(), store.Runs, string(run.ID), t0))
						h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Reason: dstack.Reason(t.Name()), Add: newNums(0), Due: t0}, t0)
						_, r := h.reread(run.ID)
						_, err := raw.ExecContext(h.ctx(), fmt.Sprintf(
							`UPDATE replicas SET status = '%s', reason = 'before', grace = %v, since = %d, backoff_at = 7, drain_by = 9, live = %v WHERE id = '%s'`,
							status, graceful, t0.UnixMicro(), !status.IsFinished(), r.ID))
						h.noError(err)
						defer func() {
							_, err := raw.ExecContext(h.ctx(), fmt.Sprintf("DELETE FROM replicas WHERE id = '%s'", r.ID))
							h.noError(err)
						}()
						_, before := h.reread(run.ID)

						step, want, ok := c.step, before, true
						if c.drain {
							step.Drain, want = []dstack.ReplicaID{r.ID}, step.DrainReplica(before, later)
						} else {
							step.Terminate = []dstack.ReplicaID{r.ID}
							want, ok = step.TerminateReplica(before, later)
						}
						h.noError(h.s.MarkDue(h.ctx(), store.Runs, string(run.ID), later))
						l := h.claim(store.Runs, string(run.ID), later)
						seen, err := h.s.RunFacts(h.ctx(), run.ID)
						h.noError(err)
						err = h.s.SaveRunStep(h.ctx(), l, seen, step, later)
						if ok {
							h.noError(err)
						} else {
							h.wantKind(dstack.Conflict, err)
							h.noError(h.s.Release(h.ctx(), l, later))
						}
						_, after := h.reread(run.ID)
						want.Version = after.Version
						if diff := cmp.Diff(want, after); diff != "" {
							t.Error(diff)
						}
					})
				}
			}
		}
	})
}
