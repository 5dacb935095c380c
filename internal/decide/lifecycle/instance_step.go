package lifecycle

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// NewInstance returns a new instance for a replica of a run that is placed on
// it. Its machine is still to be created.
func NewInstance(id dstack.InstanceID, o dstack.Offer, run dstack.Run, now time.Time) dstack.Instance {
	i := dstack.Instance{
		ID: id, Backend: o.Key, Offer: o, Host: o.Host, Status: dstack.InstanceCreating, Since: now, IdleTime: idleTime(run.Spec),
		IsDraining: o.IsDraining,
	}
	if isRented(i) {
		i.Project = run.ProjectID
	}
	return i
}

// idleTime returns how long a machine that is rented for a run may have no
// replicas; negative: no limit.
func idleTime(rs dstack.RunSpec) time.Duration {
	params := spec.Merge(rs.Configuration, rs.Profile)
	if params.TerminationPolicy == spec.KeepIdle || params.TerminationIdleTime == nil || *params.TerminationIdleTime < 0 {
		return -1
	}
	return time.Duration(*params.TerminationIdleTime) * time.Second
}

// Apply returns an instance as the step leaves it. answered says that its engine
// did; failure is the error of the step's action, or of listing the machines.
func (step InstanceStep) Apply(seen InstanceFacts, answered bool, failure error, now time.Time) dstack.Instance {
	i := seen.Instance
	i.EmptySince, i.UnlistedSince = emptySince(seen, now), unlistedSince(seen, now)
	if step.To != i.Status {
		i.Since = now
	}
	i.Status, i.Reason = step.To, step.Reason
	if answered {
		i.LastResponseAt = now
	}
	switch asked := seen.Listed && step.Action == SyncEngine; {
	case isManaged(i): // its engine's answers come from the control plane
		i.SilentSince = silentSince(seen)
	case answered:
		i.SilentSince = time.Time{}
	case asked && (i.SilentSince.IsZero() || !isObserved(i, now)):
		i.SilentSince = beginSilence(seen.Machine, step.AskedAt)
	}
	if m := seen.Machine; m != nil && i.TakenBackAt.IsZero() {
		i.TakenBackAt = m.TakenBackAt.Truncate(time.Microsecond)
	}
	i.IsDraining = isDraining(seen, i)
	if seen.Listed {
		i.CheckedAt = now
	}
	switch {
	case step.To == dstack.InstanceAway && step.Action == NoAction && failure == nil: // nothing was asked
	case failure == nil:
		i.ConsecutiveFailures, i.LastError = 0, ""
	default:
		i.ConsecutiveFailures, i.LastError = i.ConsecutiveFailures+1, failure.Error()
	}
	return i
}
