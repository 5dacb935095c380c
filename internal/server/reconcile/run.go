package reconcile

import (
	"context"
	"time"

	"dstack/internal/decide/autoscale"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// stepRuns is one pass over some runs.
func (r *Reconciler) stepRuns(ctx context.Context, leases []store.Lease) bool {
	return r.forEach(ctx, leases, maxRuns, func(l store.Lease) (bool, error) { return true, r.stepRun(ctx, l) })
}

// addScale adds to the facts how many replicas there should be.
func addScale(seen *lifecycle.RunFacts, now time.Time) {
	groups := autoscale.DecideGroups(seen.Run, seen.Replicas, seen.Load, now)
	seen.DesiredReplicas, seen.Groups = 0, nil
	for _, g := range groups {
		seen.DesiredReplicas += g.DesiredReplicas
		if at := g.NextAt; !at.IsZero() && (seen.ScaleDue.IsZero() || at.Before(seen.ScaleDue)) {
			seen.ScaleDue = at
		}
		seen.ScaleReason = dstack.Reason(g.Reason)
		seen.Groups = append(seen.Groups, lifecycle.GroupScale{Group: g.Group, DesiredReplicas: g.DesiredReplicas, Reason: seen.ScaleReason})
	}
	if len(seen.Run.Spec.Configuration.Groups) == 0 {
		seen.Groups = nil
	} else {
		seen.ScaleReason = "" // each group has its own
	}
}

// stepRun decides and saves the next step of a run.
func (r *Reconciler) stepRun(ctx context.Context, l store.Lease) error {
	seen, err := r.Store.RunFacts(ctx, dstack.RunID(l.ID))
	if err != nil {
		return err
	}
	now := time.Now()
	addScale(&seen, now)
	step, err := lifecycle.DecideRun(seen, now)
	if err != nil {
		return err
	}
	if err := r.Store.SaveRunStep(ctx, l, seen, step, now); err != nil {
		return err
	}
	if seen.Run.Status != step.To {
		r.logChange("run", seen.Run.Name, seen.Run.Status, step.To, step.Reason)
	}
	if step.Rollback != nil {
		r.Log.Warn("a revision was rolled back",
			"name", seen.Run.Name, "from", seen.Run.Revision, "to", step.Rollback.ToRevision, "why", step.Rollback.Reason)
		r.wakes[store.Runs].Signal()
	}
	if len(step.Add)+len(step.Terminate)+len(step.Drain) > 0 {
		r.wakes[store.Replicas].Signal()
		r.wakes[store.Instances].Signal()
	}
	return nil
}
