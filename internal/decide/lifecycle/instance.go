package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

const (
	silentAfter = 15 * time.Second // without an answer of its engine, its reason says so
	maxCheckGap = 90 * time.Second // between two checks of a machine that count as one observation
)

// How often an engine is synced: often while an attempt starts or ends, each
// second while something runs, rarely while nothing does.
const (
	syncEager = 5 * time.Millisecond // plain processes start quickly, and asking costs nothing
	syncQuick = 20 * time.Millisecond
	syncBrisk = 200 * time.Millisecond
	syncCalm  = time.Second
	syncIdle  = 30 * time.Second
)

// DecideInstance decides the next step of an instance. It fails on an unknown status.
func DecideInstance(seen InstanceFacts, now time.Time) (InstanceStep, error) {
	if seen.Unconfigured && seen.Instance.Status != dstack.InstanceDeleted {
		if isRented(seen.Instance) {
			return keepUnconfigured(seen, now), nil
		}
		return retireInstance(seen, now), nil
	}
	if step, ok := removeNode(seen, now); ok {
		return step, nil
	}
	if step, ok := leaveFleet(seen, now); ok {
		return step, nil
	}
	switch seen.Instance.Status {
	case dstack.InstanceCreating:
		return instanceCreating(seen, now), nil
	case dstack.InstanceUp:
		return instanceUp(seen, now), nil
	case dstack.InstanceAway:
		return instanceAway(seen, now), nil
	case dstack.InstanceDeleting:
		return instanceDeleting(seen, now), nil
	case dstack.InstanceDeleted:
		return InstanceStep{To: seen.Instance.Status, Reason: seen.Instance.Reason}, nil
	default:
		return InstanceStep{}, fmt.Errorf("instance %s has the unknown status %q", seen.Instance.ID, seen.Instance.Status)
	}
}

// retireInstance decides the step of an owned machine whose backend is not
// configured any more. The instance is deleted once all of its replicas are to
// end, because nothing could end them. Others may be found again when the backend
// is configured again.
func retireInstance(seen InstanceFacts, now time.Time) InstanceStep {
	for _, p := range seen.Replicas {
		if p.Replica.Status != dstack.ReplicaTerminating {
			return InstanceStep{To: seen.Instance.Status, Due: now.Add(syncIdle),
				Reason: "its backend is not configured any more: add it to config.yml again, or stop its runs"}
		}
	}
	return InstanceStep{To: dstack.InstanceDeleted, Reason: "its backend is not configured any more", Due: now}
}

// isRetired reports whether a backend no longer lists an owned machine, and no
// replica needs it. A backend that does not answer says neither.
func isRetired(seen InstanceFacts, now time.Time) bool {
	unlisted := unlistedSince(seen, now)
	return !isRented(seen.Instance) && seen.Listed && len(seen.Replicas) == 0 && !unlisted.IsZero() && now.Sub(unlisted) >= maxUnlisted
}

func instanceCreating(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	switch {
	case isRented(i) && len(seen.Replicas) == 0 && seen.Member == nil:
		return deleteInstance("no longer needed", now)
	case whyFailed(seen) != "":
		return deleteFailed(seen, now)
	case seen.Machine != nil && seen.Machine.IsAlive():
		return InstanceStep{To: dstack.InstanceUp, Action: SyncEngine, AskedAt: now, Due: now.Add(syncInterval(seen, now))}
	case isRented(i) && now.Sub(i.Since) >= createTimeout:
		return deleteLate(seen, now)
	case !seen.Listed:
		return InstanceStep{To: dstack.InstanceCreating, Reason: "its backend does not answer", Due: now.Add(syncCalm)}
	case seen.Machine == nil:
		return InstanceStep{To: dstack.InstanceCreating, Reason: explainCreating(seen), Action: CreateMachine, Due: now.Add(retryDelay(i))}
	default:
		return InstanceStep{To: dstack.InstanceCreating, Reason: explainCreating(seen), Due: now.Add(syncCalm)}
	}
}

// retryDelay returns the time until a call to a backend is repeated: a second,
// doubled with each failure in a row, so that a backend that limits the rate of
// calls recovers.
func retryDelay(i dstack.Instance) time.Duration { return backoffAfter(i.ConsecutiveFailures + 1) }

func deleteInstance(why dstack.Reason, now time.Time) InstanceStep {
	return InstanceStep{To: dstack.InstanceDeleting, Reason: why, Due: now}
}

// instanceUp synchronizes the engine with the replicas placed on the instance.
// A rented machine is deleted if it disappeared, is silent for too long, or has
// had no replicas for its idle time. An owned machine whose engine does not
// answer is kept, with its replicas: they may well be healthy. If it is remote, it is
// away after awayAfter; that is saved before the engine is asked again.
func instanceUp(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	if step, ok := deleteRented(seen, now); ok {
		return step
	}
	if isRetired(seen, now) {
		return InstanceStep{To: dstack.InstanceDeleted, Reason: "its backend does not offer it any more", Due: now}
	}
	if isManaged(i) {
		if isNodeSilent(seen, now) {
			return InstanceStep{To: dstack.InstanceAway, Reason: explainNodeSilence(seen), StaysAway: true, Due: now}
		}
	} else if isRemote(i) && hasAnswered(i) && silentFor(i, awayAfter, now) {
		return InstanceStep{To: dstack.InstanceAway, Reason: explainSilence(seen), Due: now}
	}
	step := InstanceStep{To: dstack.InstanceUp, Reason: explainTakeBack(i), Action: SyncEngine, AskedAt: now, Due: now.Add(syncInterval(seen, now))}
	if i.ConsecutiveFailures > 0 {
		step.Due = now.Add(syncCalm)
		if now.Sub(i.LastResponseAt) >= silentAfter {
			step.Reason = explainDeafEngine(i)
		}
	}
	if isRemote(i) {
		step = step.askRemote(i, now)
	}
	if empty := emptySince(seen, now); isRented(i) && seen.Listed && !empty.IsZero() && i.IdleTime >= 0 {
		step.Due = earliestDue(now, step.Due, empty.Add(i.IdleTime))
	}
	return step
}

// isObserved reports whether an instance has been checked without a long gap
// until now. After a long gap it is unknown whether its engine would have
// answered, or its backend would have listed it.
func isObserved(i dstack.Instance, now time.Time) bool {
	gap := now.Sub(i.CheckedAt)
	return gap >= 0 && gap <= maxCheckGap
}

// emptySince returns since when an instance has had no replicas; zero: it has
// some.
func emptySince(seen InstanceFacts, now time.Time) time.Time {
	if len(seen.Replicas) > 0 {
		return time.Time{}
	}
	return firstSeen(seen.Instance.EmptySince, now)
}

// unlistedSince returns since when a backend has not listed a machine; zero: the
// last list had it.
func unlistedSince(seen InstanceFacts, now time.Time) time.Time {
	switch {
	case !seen.Listed:
		return seen.Instance.UnlistedSince
	case seen.Machine != nil:
		return time.Time{}
	case !isObserved(seen.Instance, now):
		return now
	default:
		return firstSeen(seen.Instance.UnlistedSince, now)
	}
}

// firstSeen returns since when a condition that is true now has been true. A
// time after now was written before the clock was set back.
func firstSeen(since, now time.Time) time.Time {
	if since.IsZero() || since.After(now) {
		return now
	}
	return since
}

// syncInterval returns the time until the engine is synced again.
func syncInterval(seen InstanceFacts, now time.Time) time.Duration {
	soonest := syncIdle
	if len(seen.Reports) > 0 {
		soonest = syncCalm
	}
	quick := syncQuick
	if !seen.Instance.Offer.Engine.Containers {
		quick = syncEager
	}
	for _, p := range seen.Replicas {
		soonest = min(soonest, syncIntervalOf(p.Replica, quick, now))
	}
	return soonest
}

func syncIntervalOf(r dstack.Replica, quick time.Duration, now time.Time) time.Duration {
	since := r.Since
	if since.Before(r.AttemptAt) {
		since = r.AttemptAt
	}
	age := now.Sub(since)
	switch r.Status {
	case dstack.ReplicaStarting, dstack.ReplicaTerminating:
		switch {
		case age < 300*time.Millisecond:
			return quick
		case age < 3*time.Second:
			return syncQuick
		case age < time.Minute:
			return syncBrisk
		default:
			return syncCalm
		}
	case dstack.ReplicaRestarting:
		return syncBrisk
	default:
		return syncCalm
	}
}
