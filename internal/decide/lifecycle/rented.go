package lifecycle

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	createTimeout = 20 * time.Minute // from requested to alive
	settleTime    = 3 * time.Minute  // a machine just created may not be listed yet
	maxUnlisted   = 20 * time.Second // out of its backend's lists for so long, a rented machine has disappeared
	maxSilence    = 5 * time.Minute  // without an answer of its engine, a rented machine is deleted
	maxAskedWait  = 10 * time.Minute // the longest wait that a backend may ask for
	maxDeletePace = time.Minute      // between two requests to delete one machine
)

// isRented reports whether a machine is deleted when it is not needed. Owned
// machines stay.
func isRented(i dstack.Instance) bool { return i.Offer.OwnedInstance == "" }

// hasAnswered reports whether the engine of a machine has ever answered. A rented machine that boots has not: it is
// not away.
func hasAnswered(i dstack.Instance) bool { return !isRented(i) || !i.LastResponseAt.IsZero() }

// describeRented names a rented machine for the user: spot machine g6.xlarge in us-east-1a.
func describeRented(o dstack.Offer) string {
	text := "machine " + o.Type
	if o.Spot {
		text = "spot " + text
	}
	switch {
	case o.Zone != "":
		text += " in " + o.Zone
	case o.Region != "":
		text += " in " + o.Region
	}
	return text
}

// explainCreating says, for the user, how far the creation of a rented machine is.
func explainCreating(seen InstanceFacts) dstack.Reason {
	i := seen.Instance
	switch {
	case !isRented(i):
		return ""
	case seen.Machine != nil:
		return dstack.Reason(describeRented(i.Offer) + " " + cmp.Or(seen.Machine.Progress, "boots"))
	case i.LastError != "":
		return dstack.Reason(fmt.Sprintf("%s is requested again: %s", describeRented(i.Offer), i.LastError))
	}
	return dstack.Reason(describeRented(i.Offer) + " is requested")
}

// explainTakeBack says, for the user, when a spot machine is taken back; empty: that is not announced.
func explainTakeBack(i dstack.Instance) dstack.Reason {
	if i.TakenBackAt.IsZero() {
		return ""
	}
	return dstack.Reason(fmt.Sprintf("%s takes the %s back at %s", i.Offer.Backend, describeRented(i.Offer), i.TakenBackAt.UTC().Format("15:04:05 MST")))
}

// syncUnconfigured is the time until a rented machine without a backend is looked at again: replicas wait when that is back.
const syncUnconfigured = 5 * time.Second

// keepUnconfigured decides the step of a rented machine whose backend is not configured any more. It may cost money, so
// its row stays. Its replicas can neither be asked nor ended, as on a machine that is away.
func keepUnconfigured(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	step := InstanceStep{To: dstack.InstanceAway, StaysAway: true, Due: now.Add(syncUnconfigured), Reason: dstack.Reason(fmt.Sprintf(
		"the backend %s of the %s is not configured any more: add it to config.yml again, or delete the machine in its account",
		i.Backend, describeRented(i.Offer)))}
	if i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceCreating {
		step.To = i.Status
	}
	return step
}

// deleteRented decides whether a rented machine that is up or away is deleted. ok is false if it stays.
func deleteRented(seen InstanceFacts, now time.Time) (step InstanceStep, ok bool) {
	i := seen.Instance
	if !isRented(i) || !seen.Listed {
		return InstanceStep{}, false
	}
	unlisted, empty := unlistedSince(seen, now), emptySince(seen, now)
	switch {
	case whyFailed(seen) != "":
		return deleteFailed(seen, now), true
	case !unlisted.IsZero() && now.Sub(unlisted) >= maxUnlisted:
		return deleteInstance("its machine disappeared", now), true
	case silentFor(i, maxSilence, now):
		why := fmt.Sprintf("its engine did not answer for %s: %s", human.RoundDuration(now.Sub(i.SilentSince)), i.LastError)
		return deleteInstance(dstack.Reason(why), now), true
	}
	if !empty.IsZero() && i.IdleTime >= 0 && now.Sub(empty) >= i.IdleTime {
		return deleteInstance("idle for "+dstack.Reason(human.RoundDuration(i.IdleTime)), now), true
	}
	return InstanceStep{}, false
}

// HasEnded reports whether nothing runs on a rented machine any more: it was up, and its backend has not listed it for
// long while it was being deleted. Its row stays for longer.
func HasEnded(i dstack.Instance, now time.Time) bool {
	return isRented(i) && i.Status == dstack.InstanceDeleting && hasAnswered(i) && !i.UnlistedSince.IsZero() && isObserved(i, now) &&
		now.Sub(i.UnlistedSince) >= maxUnlisted
}

// deleteFailed deletes a machine that failed, and leaves its offer out for a while.
func deleteFailed(seen InstanceFacts, now time.Time) InstanceStep {
	step := deleteInstance(whyFailed(seen), now)
	step.Failed = &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "its machine failed"} // the backend does not know why
	if f := seen.Machine.Failure; f != nil {
		step.Failed = widenFailure(*f)
	}
	return step
}

// deleteLate deletes a machine that did not come up, and leaves its offer out for a while.
func deleteLate(seen InstanceFacts, now time.Time) InstanceStep {
	why := "did not come up in time"
	if seen.Instance.LastError != "" {
		why += ": " + seen.Instance.LastError
	}
	step := deleteInstance(dstack.Reason(why), now)
	step.Failed = &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: fmt.Sprintf("%s %s", describeRented(seen.Instance.Offer), why)}
	return step
}

// whyFailed says why a rented machine failed; empty: it has not failed.
func whyFailed(seen InstanceFacts) dstack.Reason {
	m := seen.Machine
	switch {
	case m == nil || m.State != dstack.MachineFailed || !isRented(seen.Instance):
		return ""
	case m.Failure == nil || m.Failure.Message == "":
		return "its machine failed"
	default:
		return dstack.Reason("its machine failed: " + m.Failure.Message)
	}
}

// widenFailure returns a failure that concerns every offer of the backend if nothing in it says less and no offer helps.
func widenFailure(f dstack.MachineFailure) *dstack.MachineFailure {
	if f.Scope == dstack.ScopeZone && !f.Cause.MayHelpElsewhere() {
		f.Scope = dstack.ScopeBackend
	}
	return &f
}

// refusalOf returns why a backend refuses to create a machine; nil: another call may succeed.
func refusalOf(failure error) *dstack.MachineFailure {
	kind := dstack.KindOf(failure)
	f := dstack.MachineFailure{}
	known, isKnown := errors.AsType[*dstack.MachineFailure](failure)
	if isKnown {
		f = *known
	}
	f.Message = failure.Error()
	switch kind {
	case dstack.NoCapacity:
		if f.Cause == "" {
			f.Cause = dstack.FailureNoCapacity
		}
	case dstack.Unauthorized, dstack.Forbidden:
		if f.Cause == "" {
			f.Cause = dstack.FailureMisconfigured
		}
	case dstack.Unavailable, dstack.Timeout, dstack.Conflict:
		return nil
	default:
		if f.Cause == "" { // of a kind that backends do not name
			return nil
		}
	}
	return widenFailure(f)
}

// AfterFailure returns the step to save after its action failed. A backend that
// refuses to create a machine, for lack of capacity or of permission, would
// refuse again: the instance is given up, so that its replica can be placed
// elsewhere. So is one whose launch conflicts with an earlier one: what that made is deleted.
// Any other failure leaves the step as it is, and the action is repeated, not before
// the backend asks for. failure may be nil.
func (step InstanceStep) AfterFailure(seen InstanceFacts, failure error, now time.Time) InstanceStep {
	if failure == nil || !isRented(seen.Instance) || step.Action != CreateMachine && step.Action != DeleteMachine {
		return step
	}
	if step.Action == CreateMachine {
		refusal := refusalOf(failure)
		if refusal != nil || dstack.KindOf(failure) == dstack.Conflict {
			return InstanceStep{To: dstack.InstanceDeleting, Reason: dstack.Reason(failure.Error()), Action: step.Action, Failed: refusal, Due: now}
		}
	}
	if f, ok := errors.AsType[*dstack.MachineFailure](failure); ok && f.RetryAfter > 0 {
		if asked := now.Add(min(f.RetryAfter, maxAskedWait)); asked.After(step.Due) {
			step.Due = asked
		}
	}
	return step
}

// instanceDeleting repeats the deletion until the backend has listed no such
// machine for settleTime: neither an accepted delete nor one list without the
// machine means that it is gone. It never gives up: a machine that is listed costs money.
func instanceDeleting(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	step := InstanceStep{To: dstack.InstanceDeleting, Reason: i.Reason, Due: now.Add(deletePace(i, now))}
	gone := unlistedSince(seen, now)
	if gone.Before(i.Since) {
		gone = i.Since // it may have been created right before
	}
	switch {
	case !seen.Listed:
	case seen.Machine != nil:
		step.Action = DeleteMachine
	case now.Sub(gone) >= settleTime:
		step.To = dstack.InstanceDeleted
	}
	return step
}

// deletePace returns the time until a deletion is repeated: the longer it takes, the longer, so that machines that take
// minutes to end do not use up what the backend allows.
func deletePace(i dstack.Instance, now time.Time) time.Duration {
	return max(retryDelay(i), min(now.Sub(i.Since)/4, maxDeletePace))
}
