package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

const (
	createTimeout = 20 * time.Minute // from rented to alive
	silentAfter   = 15 * time.Second // without an answer of its engine, people are told
	settleTime    = 3 * time.Minute  // a machine just created may not be listed yet
)

// How often an engine is asked: closely while something starts or ends, each
// second while something runs, seldom while nothing does.
const (
	syncEager = 5 * time.Millisecond // processes start in a moment, and asking costs nothing
	syncQuick = 20 * time.Millisecond
	syncBrisk = 200 * time.Millisecond
	syncCalm  = time.Second
	syncIdle  = 30 * time.Second
)

// DecideInstance decides the next step of an instance.
func DecideInstance(seen InstanceFacts, now time.Time) (InstanceStep, error) {
	switch seen.Instance.Status {
	case dstack.InstanceCreating:
		return instanceCreating(seen, now), nil
	case dstack.InstanceUp:
		return instanceUp(seen, now), nil
	case dstack.InstanceDeleting:
		return instanceDeleting(seen, now), nil
	case dstack.InstanceDeleted:
		return InstanceStep{To: seen.Instance.Status, Reason: seen.Instance.Reason}, nil
	default:
		return InstanceStep{}, fmt.Errorf("instance %s has the unknown status %q", seen.Instance.ID, seen.Instance.Status)
	}
}

// isRented machines end when nobody needs them; owned ones stay.
func isRented(i dstack.Instance) bool { return i.Offer.OwnedInstance == "" }

func instanceCreating(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	switch {
	case isRented(i) && len(seen.Replicas) == 0:
		return InstanceStep{To: dstack.InstanceDeleting, Reason: "no longer needed", Due: now}
	case isRented(i) && now.Sub(i.Since) >= createTimeout:
		return InstanceStep{To: dstack.InstanceDeleting, Reason: "did not come up in time", Due: now}
	case seen.Machine != nil && seen.Machine.Alive:
		return InstanceStep{To: dstack.InstanceUp, Action: SyncEngine, Due: now.Add(syncInterval(seen, now))}
	case !seen.Listed:
		return InstanceStep{To: dstack.InstanceCreating, Reason: "its backend does not answer", Due: now.Add(syncCalm)}
	case seen.Machine == nil:
		return InstanceStep{To: dstack.InstanceCreating, Action: CreateMachine, Due: now.Add(syncCalm)}
	default:
		return InstanceStep{To: dstack.InstanceCreating, Due: now.Add(syncCalm)}
	}
}

// instanceUp keeps the engine in step with what is placed on it. An engine
// that does not answer changes nothing: what runs on it may well be healthy.
func instanceUp(seen InstanceFacts, now time.Time) InstanceStep {
	i := seen.Instance
	if isRented(i) && seen.Listed && seen.Machine == nil {
		return InstanceStep{To: dstack.InstanceDeleting, Reason: "its machine disappeared", Due: now}
	}
	step := InstanceStep{To: dstack.InstanceUp, Action: SyncEngine, Due: now.Add(syncInterval(seen, now))}
	if i.ConsecutiveFailures > 0 {
		step.Due = now.Add(syncCalm)
		if now.Sub(i.LastResponseAt) >= silentAfter {
			step.Reason = dstack.Reason("its engine does not answer: " + i.LastError)
		}
	}
	return step
}

// syncInterval says how soon to ask the engine again.
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

// instanceDeleting repeats the deletion until the backend has known no such
// machine for settleTime: neither an accepted delete nor one empty listing
// means that the machine is gone.
func instanceDeleting(seen InstanceFacts, now time.Time) InstanceStep {
	step := InstanceStep{To: dstack.InstanceDeleting, Reason: seen.Instance.Reason, Due: now.Add(syncCalm)}
	switch {
	case !seen.Listed:
	case seen.Machine != nil:
		step.Action = DeleteMachine
	case now.Sub(seen.Instance.Since) >= settleTime:
		step.To = dstack.InstanceDeleted
	}
	return step
}
