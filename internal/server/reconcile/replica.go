package reconcile

import (
	"context"
	"fmt"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

// replica is one pass over a replica.
func (r *Reconciler) replica(ctx context.Context, l store.Lease) error {
	seen, err := r.seeReplica(ctx, dstack.ReplicaID(l.ID))
	if err != nil {
		return err
	}
	now := time.Now()
	step, err := lifecycle.Replica(seen, now)
	if err != nil {
		return err
	}
	if step.Past != nil && len(step.Past.LastOut) == 0 {
		step.Past.LastOut = r.lastOutput(ctx, seen, step.Past.ID)
	}
	if err := r.Store.SaveReplicaStep(ctx, l, seen, step, now); err != nil {
		return err
	}
	if changed := seen.Replica.Status != step.To || step.Attempt || step.Blocked != seen.Replica.Blocked; changed {
		name := fmt.Sprintf("%s/%d", seen.Run.Name, seen.Replica.Num)
		r.tell(true, "replica", name, seen.Replica.Status, step.To, step.Reason)
		r.wakes[store.Runs].Up()
		r.wakes[store.Instances].Up()
	}
	return nil
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

// seeReplica reads all that is known of a replica, and where it could go
// while it waits for a place.
func (r *Reconciler) seeReplica(ctx context.Context, id dstack.ReplicaID) (lifecycle.ReplicaFacts, error) {
	seen, err := r.Store.ReplicaFacts(ctx, id)
	if err != nil {
		return seen, err
	}
	seen.Limits = r.Limits
	if seen.Replica.Status != dstack.ReplicaWaiting {
		return seen, nil
	}
	used, err := r.Store.Used(ctx, seen.Run.ProjectID)
	if err != nil {
		return seen, err
	}
	offers := r.offers(ctx, seen.Run.Project)
	need := job.Need(seen.Run.Spec)
	seen.Places, seen.Misfits = placement.Rank(need, offers, used)
	if len(seen.Places) > 0 {
		return seen, nil
	}
	var older []dstack.Replica
	for _, other := range seen.Siblings {
		if other.Shape != seen.Replica.Shape {
			older = append(older, other)
		}
	}
	if len(older) > 0 {
		places, _ := placement.Rank(need, offers, placement.Without(used, older))
		seen.Blocked = len(places) > 0
	}
	return seen, nil
}

// offers asks every backend of a project. One that does not answer offers
// nothing this time.
func (r *Reconciler) offers(ctx context.Context, project string) (all []dstack.Offer) {
	all, silent := r.Backends.Offers(ctx, project)
	for _, b := range silent {
		r.Log.Warn("a backend did not answer", "backend", b.Key, "err", b.Err)
	}
	return all
}
