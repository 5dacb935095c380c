package reconcile

import (
	"context"
	"fmt"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

// stepReplicas is one pass over some replicas. Their facts are read together and
// their steps are saved together. Each replica is decided alone: a failure
// concerns no other replica.
func (r *Reconciler) stepReplicas(ctx context.Context, leases []store.Lease) bool {
	ids := make([]dstack.ReplicaID, len(leases))
	for i, l := range leases {
		ids[i] = dstack.ReplicaID(l.ID)
	}
	all, err := r.Store.ReplicasFacts(ctx, ids)
	if err != nil {
		all = make([]store.SeenReplica, len(leases)) // every replica fails with err
	}
	var failures []stepFailure
	capacity, now := r.newCapacity(), time.Now()
	saves := make([]store.ReplicaSave, 0, len(leases))
	for i, l := range leases {
		save := store.ReplicaSave{Lease: l, Seen: all[i].ReplicaFacts}
		failure := err
		if failure == nil {
			failure = all[i].Err
		}
		if failure == nil {
			failure = recoverPanic(func() error { return r.decideReplica(ctx, &save, capacity, now) })
		}
		if failure != nil {
			failures = append(failures, stepFailure{l, failure})
			continue
		}
		saves = append(saves, save)
	}
	for i, err := range r.Store.SaveReplicaSteps(ctx, saves, now) {
		if err != nil {
			failures = append(failures, stepFailure{saves[i].Lease, err})
			continue
		}
		r.reportStep(saves[i])
	}
	r.releaseFailed(ctx, failures)
	return true
}

// decideReplica sets save.Step to the next step of a replica.
func (r *Reconciler) decideReplica(
	ctx context.Context, save *store.ReplicaSave, capacity *capacity, now time.Time,
) error {
	seen := &save.Seen
	seen.Limits = r.Limits
	if seen.Replica.Status == dstack.ReplicaWaiting {
		if err := capacity.findPlacements(ctx, seen); err != nil {
			return err
		}
	}
	step, err := lifecycle.DecideReplica(*seen, now)
	if err != nil {
		return err
	}
	if step.LeftOut != nil {
		r.excludeForRun(seen.Run.ID, *step.LeftOut, step.Reason, now)
	}
	if step.EndedAttempt != nil && len(step.EndedAttempt.LastOutput) == 0 {
		step.EndedAttempt.LastOutput = r.readLastOutput(ctx, *seen, step.EndedAttempt.ID)
	}
	if step.Placement != nil {
		capacity.addPlacement(*seen, *step.Placement)
	}
	save.Step = step
	return nil
}

// excludeForRun leaves out a machine for a run for a while. It is kept in memory: a
// restarted server tries the machine once more.
func (r *Reconciler) excludeForRun(run dstack.RunID, o dstack.Offer, why dstack.Reason, now time.Time) {
	r.exclusionsMu.Lock()
	defer r.exclusionsMu.Unlock()
	r.exclusions.ExcludeForRun(run, o, string(why), now)
}

// reportStep logs a saved step, and wakes the other passes, if it changed the
// replica.
func (r *Reconciler) reportStep(save store.ReplicaSave) {
	seen, step := save.Seen, save.Step
	if seen.Replica.Status == step.To && !step.NewAttempt && step.Blocked == seen.Replica.Blocked {
		return
	}
	name := fmt.Sprintf("%s/%d", seen.Run.Name, seen.Replica.Num)
	r.logChange("replica", name, seen.Replica.Status, step.To, step.Reason)
	r.wakes[store.Runs].Signal()
	r.wakes[store.Instances].Signal()
}

// maxLastLines is how many lines of an attempt's output are saved with it.
const maxLastLines = 10

// readLastOutput reads the last output of an attempt from the logs. An engine
// reports it only for attempts that ended by themselves.
func (r *Reconciler) readLastOutput(
	ctx context.Context, seen lifecycle.ReplicaFacts, id dstack.AttemptID,
) (last []string) {
	key := logs.Key{Project: seen.Run.Project, Run: seen.Run.ID, RunName: seen.Run.Name, Attempt: id}
	for line, err := range r.Logs.Read(ctx, key, time.Time{}, time.Time{}) {
		if err != nil {
			break // the output only helps the user: its loss is no reason to fail the step
		}
		last = append(last, string(line.Text))
		last = last[max(0, len(last)-maxLastLines):]
	}
	return last
}
