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

// replicas is one pass over some replicas. What is known of all of them is
// read at once, and what becomes of them is saved at once; each is decided
// alone, and what fails concerns that one.
func (r *Reconciler) replicas(ctx context.Context, leases []store.Lease) bool {
	ids := make([]dstack.ReplicaID, len(leases))
	for i, l := range leases {
		ids[i] = dstack.ReplicaID(l.ID)
	}
	all, err := r.Store.ReplicasFacts(ctx, ids)
	if err != nil {
		all = make([]store.SeenReplica, len(leases)) // nothing could be read of any
	}
	var failures []failure
	rooms, now := r.newRooms(), time.Now()
	saves := make([]store.ReplicaSave, 0, len(leases))
	for i, l := range leases {
		save := store.ReplicaSave{Lease: l, Seen: all[i].ReplicaFacts}
		fail := err
		if fail == nil {
			fail = all[i].Err
		}
		if fail == nil {
			fail = safely(func() error { return r.decide(ctx, &save, rooms, now) })
		}
		if fail != nil {
			failures = append(failures, failure{l, fail})
			continue
		}
		saves = append(saves, save)
	}
	for i, err := range r.Store.SaveReplicaSteps(ctx, saves, now) {
		if err != nil {
			failures = append(failures, failure{saves[i].Lease, err})
			continue
		}
		r.stepped(saves[i])
	}
	r.failed(ctx, failures)
	return true
}

// decide adds the next step of a replica.
func (r *Reconciler) decide(ctx context.Context, save *store.ReplicaSave, rooms *rooms, now time.Time) error {
	seen := &save.Seen
	seen.Limits = r.Limits
	if seen.Replica.Status == dstack.ReplicaWaiting {
		if err := rooms.look(ctx, seen); err != nil {
			return err
		}
	}
	step, err := lifecycle.DecideReplica(*seen, now)
	if err != nil {
		return err
	}
	if step.EndedAttempt != nil && len(step.EndedAttempt.LastOutput) == 0 {
		step.EndedAttempt.LastOutput = r.lastOutput(ctx, *seen, step.EndedAttempt.ID)
	}
	if step.Placement != nil {
		rooms.take(*seen, *step.Placement)
	}
	save.Step = step
	return nil
}

// stepped tells of a step that was saved.
func (r *Reconciler) stepped(save store.ReplicaSave) {
	seen, step := save.Seen, save.Step
	if seen.Replica.Status == step.To && !step.NewAttempt && step.Blocked == seen.Replica.Blocked {
		return
	}
	name := fmt.Sprintf("%s/%d", seen.Run.Name, seen.Replica.Num)
	r.tell(true, "replica", name, seen.Replica.Status, step.To, step.Reason)
	r.wakes[store.Runs].Signal()
	r.wakes[store.Instances].Signal()
}

// lastLines is how much of an attempt's output is kept with it.
const lastLines = 10

// lastOutput is what an attempt has written last, by the logs: an engine tells
// it only of those that ended by themselves.
func (r *Reconciler) lastOutput(ctx context.Context, seen lifecycle.ReplicaFacts, id dstack.AttemptID) (last []string) {
	key := logs.Key{Project: seen.Run.Project, Run: seen.Run.ID, RunName: seen.Run.Name, Attempt: id}
	for line, err := range r.Logs.Read(ctx, key, time.Time{}, time.Time{}) {
		if err != nil {
			break // it is help for people, and not worth failing for
		}
		last = append(last, string(line.Text))
		last = last[max(0, len(last)-lastLines):]
	}
	return last
}
