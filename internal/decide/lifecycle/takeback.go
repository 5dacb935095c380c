package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

const (
	// takeBackDrain is how long before a spot machine is taken back its replicas drain, whatever else serves.
	takeBackDrain = 30 * time.Second
	// takeBackStop is how long before a spot machine is taken back its replicas are stopped, so that they can end by themselves.
	takeBackStop = 10 * time.Second
)

// displaceTakenBack says how replicas leave a spot machine that is taken back: each is replaced at once. It goes on to serve
// until its replacement or another replica does, or until takeBackDrain before the end. until is when that is.
func displaceTakenBack(i dstack.Instance, now time.Time) (d displacement, until time.Time) {
	d = displacement{reason: explainTakeBack(i), isUrgent: true}
	drainAt := i.TakenBackAt.Add(-takeBackDrain)
	if d.isForced = !now.Before(drainAt); d.isForced {
		return d, time.Time{}
	}
	return d, drainAt
}

// isDraining reports whether a machine gets no new replicas: its backend or its fleet says so, or it is taken back. i is the
// instance as it was, with what is known now of its being taken back.
func isDraining(seen InstanceFacts, i dstack.Instance) bool {
	if m := seen.Member; m != nil && (m.IsDraining || m.IsLeaving) {
		return true
	}
	switch {
	case !i.TakenBackAt.IsZero():
		return true
	case seen.Machine != nil:
		return seen.Machine.IsDraining
	}
	return seen.Member == nil && i.IsDraining
}

// drainDeadline returns when a draining replica ends even if requests are in flight: before its machine is taken back.
func (seen ReplicaFacts) drainDeadline() time.Time {
	deadline := seen.Replica.DrainDeadline
	if i := seen.Instance; i != nil && !i.TakenBackAt.IsZero() {
		if stop := i.TakenBackAt.Add(-takeBackStop); stop.Before(deadline) {
			return stop
		}
	}
	return deadline
}

// leaveOut returns the offer of a machine to be left out for a run: that of the machine itself, also if it is rented.
func leaveOut(i dstack.Instance) *dstack.Offer {
	o := i.Offer
	if isRented(i) {
		o.OwnedInstance = i.ID
	}
	return &o
}

// isUnreachable reports whether a rented machine has been away for long: it is asked no more if its backend is not
// configured.
func isUnreachable(i *dstack.Instance, now time.Time) bool {
	return isAway(i) && isRented(*i) && now.Sub(i.Since) >= lostAfter
}

// interruptedAt returns when a waiting replica lost its machine; zero: it did not wait for that reason.
func interruptedAt(r dstack.Replica) time.Time {
	n := len(r.PastAttempts)
	if n == 0 || r.PastAttempts[n-1].ID != r.Attempt || r.PastAttempts[n-1].EndState != dstack.AttemptAbsent {
		return time.Time{}
	}
	return r.PastAttempts[n-1].EndedAt
}

// waitingSince returns since when a replica has had no machine that worked.
func waitingSince(r dstack.Replica) time.Time {
	if n := len(r.PastAttempts); n > 0 {
		return r.PastAttempts[n-1].EndedAt
	}
	return r.SubmittedAt
}
