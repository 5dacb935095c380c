package lifecycle

import (
	"maps"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

// Apply returns a run as the step leaves it. target is the revision
// step.Rollback.ToRevision; it is read only when the step rolls back.
func (step RunStep) Apply(run dstack.Run, target dstack.Revision, now time.Time) dstack.Run {
	next := run
	if step.To != run.Status {
		next.Since = now
	}
	if step.Ready && run.ReadyAt.IsZero() {
		next.ReadyAt = now
	}
	if step.Started && run.StartedAt.IsZero() {
		next.StartedAt = now
	}
	if step.To.IsFinished() {
		next.FinishedAt = now
	}
	next.Status, next.Reason, next.Ending = step.To, step.Reason, step.Ending
	next.DesiredReplicas = step.DesiredReplicas
	if len(run.Groups)+len(step.DesiredByGroup) > 0 {
		next.Groups = maps.Clone(run.Groups)
		setGroupCounts(&next, step.DesiredByGroup, now)
	}
	if step.StableRevision > 0 {
		next.StableRevision = step.StableRevision
	}
	if step.Rollback != nil {
		next = RollBack(next, target, now)
	}
	if next.DesiredReplicas != run.DesiredReplicas {
		next.ScaledAt = now
	}
	return next
}

// ChangesRun reports whether saving the step would change the run.
func (step RunStep) ChangesRun(run dstack.Run) bool {
	return step.Rollback != nil || step.To != run.Status || step.Reason != run.Reason || step.Ending != run.Ending ||
		step.DesiredReplicas != run.DesiredReplicas || step.changesGroups(run) || step.StableRevision > 0 && step.StableRevision != run.StableRevision ||
		step.Ready && run.ReadyAt.IsZero() || step.Started && run.StartedAt.IsZero()
}

// changesGroups reports whether the step changes the desired number of a group.
func (step RunStep) changesGroups(run dstack.Run) bool {
	for name, desired := range step.DesiredByGroup {
		if count, known := run.Groups[name]; !known || count.Desired != desired {
			return true
		}
	}
	return false
}

// KeptGroups returns the groups whose replicas a rollback keeps, because they are the same in
// the revision that it returns to.
func (step RunStep) KeptGroups(run dstack.Run, target dstack.Revision) []string {
	if step.Rollback == nil {
		return nil
	}
	return job.UnchangedGroups(run.Spec, target.Spec)
}

// KeepReplica returns a replica of a group that a new template does not change, at that
// template. It is then up to date. A replica whose number another one has there stays outdated.
func KeepReplica(run dstack.Run, r dstack.Replica) dstack.Replica {
	r.Revision, r.TemplateRevision = run.Revision, run.TemplateRevision
	return r
}

// NewReplica returns a replica that waits for a place, of the run's present
// revision.
func NewReplica(run dstack.Run, id dstack.ReplicaID, num NewNum, now time.Time) dstack.Replica {
	return dstack.Replica{
		ID: id, Run: run.ID, Num: num.Num, Group: groupName(num.Group), Revision: run.Revision, TemplateRevision: run.TemplateRevision,
		Status: dstack.ReplicaWaiting, Since: now, SubmittedAt: now,
	}
}

// DrainReplica returns one of step.Drain as the step leaves it. A replica that
// is draining, terminating or finished stays as it is.
func (step RunStep) DrainReplica(r dstack.Replica, now time.Time) dstack.Replica {
	if r.Status.IsFinished() || isLeaving(r) {
		return r
	}
	r.Status, r.Reason, r.Since = dstack.ReplicaDraining, step.StopReason, now
	r.Graceful, r.DrainDeadline, r.RetryAt = true, now.Add(step.DrainTimeout), time.Time{}
	return r
}

// TerminateReplica returns one of step.Terminate as the step leaves it. A
// terminating replica keeps its time and may only lose its grace period; a
// finished one stays as it is. ok is false when a graceful step meets a
// replica that serves: it became ready after the decision, has to drain first,
// and nothing of the step may be saved.
func (step RunStep) TerminateReplica(r dstack.Replica, now time.Time) (next dstack.Replica, ok bool) {
	switch {
	case r.Status.IsFinished():
		return r, true
	case step.Graceful && isServing(r):
		return r, false
	case r.Status == dstack.ReplicaTerminating:
		r.Graceful = r.Graceful && step.Graceful
	default:
		r.Status, r.Since, r.Graceful = dstack.ReplicaTerminating, now, step.Graceful
	}
	r.Reason, r.RetryAt = step.StopReason, time.Time{}
	return r, true
}
