package lifecycle

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// saveResponseEvery is how often the time of an engine's answer is written when
// nothing else is.
const saveResponseEvery = 30 * time.Second

// NewInstance returns a new instance for a replica of a run that is placed on
// it. Its machine is still to be created.
func NewInstance(id dstack.InstanceID, o dstack.Offer, rs dstack.RunSpec, now time.Time) dstack.Instance {
	return dstack.Instance{
		ID: id, Backend: o.Key, Offer: o, Host: o.Host, Status: dstack.InstanceCreating, Since: now, IdleTime: idleTime(rs),
		IsDraining: o.IsDraining,
	}
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

// AfterFailure returns the step to save after its action failed. A backend that
// refuses to create a machine, for lack of capacity or of permission, would
// refuse again: the instance is given up, so that its replica can be placed
// elsewhere. Any other failure leaves the step as it is, and the action is
// repeated. failure may be nil.
func (step InstanceStep) AfterFailure(seen InstanceFacts, failure error, now time.Time) InstanceStep {
	if failure == nil || step.Action != CreateMachine || !isRented(seen.Instance) {
		return step
	}
	switch dstack.KindOf(failure) {
	case dstack.NoCapacity, dstack.Unauthorized, dstack.Forbidden:
		return InstanceStep{To: dstack.InstanceDeleting, Reason: dstack.Reason(failure.Error()), Action: step.Action, Due: now}
	default:
		return step
	}
}

// OfferFailure says why an offer did not give a machine.
type OfferFailure struct {
	Reason       string // for the user
	WholeBackend bool   // no other offer of the backend would help
}

// FailedOffer reports whether the offer of an instance failed: its backend refused
// to create the machine, or the machine failed. failure is the error of the step's
// action; it may be nil.
func (step InstanceStep) FailedOffer(seen InstanceFacts, failure error) (OfferFailure, bool) {
	if failure != nil && step.Action == CreateMachine {
		switch dstack.KindOf(failure) {
		case dstack.NoCapacity:
			return OfferFailure{Reason: failure.Error()}, true
		case dstack.Unauthorized, dstack.Forbidden:
			return OfferFailure{Reason: failure.Error(), WholeBackend: true}, true
		default: // worth another try
			return OfferFailure{}, false
		}
	}
	m := seen.Machine
	switch {
	case m == nil || m.State != dstack.MachineFailed || seen.Instance.Status == dstack.InstanceDeleting:
		return OfferFailure{}, false
	case m.Failure == nil: // the backend does not know why
		return OfferFailure{Reason: "its machine failed"}, true
	default:
		return OfferFailure{Reason: m.Failure.Message, WholeBackend: !m.Failure.Cause.MayHelpElsewhere()}, true
	}
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
	if answered && (i.ConsecutiveFailures > 0 || now.Sub(i.LastResponseAt) >= saveResponseEvery) {
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
	if seen.Machine != nil {
		i.IsDraining = seen.Machine.IsDraining
	}
	if m := seen.Member; m != nil {
		i.IsDraining = m.IsDraining || m.IsLeaving || seen.Machine != nil && seen.Machine.IsDraining
	}
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
