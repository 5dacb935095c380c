package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

// Run decides the next step of a run. One that begins to end is looked at
// again at once: it may have nothing left to wait for.
func Run(seen RunFacts, now time.Time) (RunStep, error) {
	var step RunStep
	switch seen.Run.Status {
	case dstack.RunSubmitted, dstack.RunActive:
		step = runActive(seen)
	case dstack.RunTerminating:
		step = runTerminating(seen)
	case dstack.RunTerminated, dstack.RunFailed:
		return RunStep{To: seen.Run.Status, Reason: seen.Run.Reason, Ending: seen.Run.Ending}, nil
	default:
		return RunStep{}, fmt.Errorf("run %s has the unknown status %q", seen.Run.ID, seen.Run.Status)
	}
	if step.To == dstack.RunTerminating && seen.Run.Status != dstack.RunTerminating {
		step.Due = now
	}
	return step, nil
}

// runActive moves the replicas towards the wanted number at the current
// revision. Replicas of an older revision leave first: where replicas share a
// machine's ports, the new ones could not start before.
func runActive(seen RunFacts) RunStep {
	if seen.Run.Stop != dstack.StopNone {
		return runStopped(seen)
	}
	fresh, old, failed := sortOut(seen)
	if len(failed) > 0 && seen.Run.ReadyAt.IsZero() && countReady(fresh) == 0 {
		return runGivesUp(seen, failed[0])
	}
	wanted := seen.Run.Spec.Configuration.Replicas.Min
	step := RunStep{To: dstack.RunActive}
	if len(old) > 0 {
		step.Reason = dstack.Reason(fmt.Sprintf("ending revision %d", old[0].Revision))
		step.Why, step.Grace = "replaced by a newer revision", true
		step.Drop = unended(old)
		return step
	}
	have := map[int]bool{}
	for _, r := range fresh {
		have[r.Num] = true
		if r.Num >= wanted && r.Status != dstack.ReplicaTerminating {
			step.Drop = append(step.Drop, r.ID)
			step.Why, step.Grace = "not wanted any more", true
		}
	}
	for num := range wanted {
		if !have[num] {
			step.Add = append(step.Add, num)
		}
	}
	step.Ready = countReady(fresh) > 0
	return step
}

// sortOut tells the replicas of the current revision, those of older ones
// that are not gone yet, and those of the current one that gave up.
func sortOut(seen RunFacts) (fresh, old, failed []dstack.Replica) {
	for _, r := range seen.Replicas {
		switch {
		case r.Status == dstack.ReplicaFailed && r.Revision == seen.Run.Revision:
			failed = append(failed, r)
		case r.Status.Finished():
		case r.Revision == seen.Run.Revision:
			fresh = append(fresh, r)
		default:
			old = append(old, r)
		}
	}
	return fresh, old, failed
}

func countReady(rs []dstack.Replica) (n int) {
	for _, r := range rs {
		if r.Status == dstack.ReplicaReady {
			n++
		}
	}
	return n
}

// unended returns those that were not told to end yet.
func unended(rs []dstack.Replica) (ids []dstack.ReplicaID) {
	for _, r := range rs {
		if r.Status != dstack.ReplicaTerminating && !r.Status.Finished() {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// runStopped ends a run by its user's wish.
func runStopped(seen RunFacts) RunStep {
	step := RunStep{To: dstack.RunTerminating, Drop: unended(seen.Replicas)}
	if seen.Run.Stop == dstack.StopAbort {
		step.Reason, step.Ending = "aborted by its user", dstack.EndAborted
	} else {
		step.Reason, step.Ending, step.Grace = "stopped by its user", dstack.EndStopped, true
	}
	step.Why = step.Reason
	return step
}

// runGivesUp ends a run of which no replica was ever ready.
func runGivesUp(seen RunFacts, failed dstack.Replica) RunStep {
	ending := dstack.EndFailed
	if failed.Attempt == "" {
		ending = dstack.EndNoCapacity
	}
	return RunStep{
		To: dstack.RunTerminating, Reason: failed.Reason, Ending: ending,
		Drop: unended(seen.Replicas), Grace: true, Why: "another replica could not start",
	}
}

// runTerminating waits for the replicas to be gone. An abort that comes
// later makes the rest end at once.
func runTerminating(seen RunFacts) RunStep {
	step := RunStep{To: dstack.RunTerminating, Reason: seen.Run.Reason, Ending: seen.Run.Ending, Why: seen.Run.Reason}
	aborted := seen.Run.Stop == dstack.StopAbort
	step.Grace = !aborted
	left := 0
	for _, r := range seen.Replicas {
		if r.Status.Finished() {
			continue
		}
		left++
		if r.Status != dstack.ReplicaTerminating || (aborted && r.Grace) {
			step.Drop = append(step.Drop, r.ID)
		}
	}
	if left > 0 {
		return step
	}
	switch seen.Run.Ending {
	case dstack.EndFailed, dstack.EndNoCapacity:
		step.To = dstack.RunFailed
	default:
		step.To = dstack.RunTerminated
	}
	return step
}
