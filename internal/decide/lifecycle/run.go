package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// DecideRun decides the next step of a run. One that begins to end is looked at
// again at once: it may have nothing left to wait for.
func DecideRun(seen RunFacts, now time.Time) (RunStep, error) {
	var step RunStep
	switch seen.Run.Status {
	case dstack.RunSubmitted, dstack.RunActive:
		step = runActive(seen, now)
	case dstack.RunTerminating:
		step = runTerminating(seen)
	case dstack.RunTerminated, dstack.RunFailed:
		return RunStep{To: seen.Run.Status, Reason: seen.Run.Reason, Ending: seen.Run.Ending, DesiredReplicas: seen.Run.DesiredReplicas}, nil
	default:
		return RunStep{}, fmt.Errorf("run %s has the unknown status %q", seen.Run.ID, seen.Run.Status)
	}
	if step.To == dstack.RunTerminating {
		step.DesiredReplicas = seen.Run.DesiredReplicas
		if seen.Run.Status != dstack.RunTerminating {
			step.Due = now
		}
	}
	return step, nil
}

// runActive moves the replicas towards the wanted number at the present
// shape. Those of an older one leave as new ones become ready.
func runActive(seen RunFacts, now time.Time) RunStep {
	if seen.Run.Stop != dstack.StopNone {
		return runStopped(seen)
	}
	over, limited := endOf(seen.Run)
	if limited && !now.Before(over) {
		return runTimedOut(seen)
	}
	c := crewOf(seen)
	if seen.Run.ReadyAt.IsZero() && len(c.failed) > 0 {
		if seen.Run.StableRevision > 0 {
			return runFallsBack(seen, c, now)
		}
		if len(c.fresh) == 0 && !c.protected() { // nothing is left that could become ready, or serves
			return runGivesUp(seen, c.failed[0])
		}
	}
	step := RunStep{To: dstack.RunActive, DesiredReplicas: seen.DesiredReplicas, DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	step.Started = begun(seen)
	step.Ready = c.serves(seen)
	step.Due = soonest(now, seen.ScaleDue, over)
	c.hire(seen, &step)
	if len(c.old) > 0 {
		step.Reason = dstack.Reason(fmt.Sprintf("updating to revision %d", seen.Run.Revision))
		if seen.Run.LatestRevision > seen.Run.Revision {
			step.Reason = dstack.Reason(fmt.Sprintf("going back to revision %d", seen.Run.Revision))
		}
		step.StopReason = dstack.Reason(fmt.Sprintf("replaced by revision %d", seen.Run.Revision))
		step.Terminate, step.Drain = told(c.leaving(seen))
	} else if more := len(c.fresh) - seen.DesiredReplicas; more > 0 {
		step.StopReason = "not wanted any more"
		if seen.ScaleReason != "" {
			step.StopReason = "scaled down: " + seen.ScaleReason
		}
		step.Terminate, step.Drain = told(c.least(c.fresh, more))
	}
	step.Graceful = true
	return step
}

// begun says that a run's first replica has a machine.
func begun(seen RunFacts) bool {
	for _, r := range seen.Replicas {
		if r.Instance != "" {
			return seen.Run.StartedAt.IsZero()
		}
	}
	return false
}

// endOf is when a run has lived for as long as it may. It counts from when its
// first replica had a machine.
func endOf(run dstack.Run) (over time.Time, limited bool) {
	most := spec.Merge(run.Spec.Configuration, run.Spec.Profile).MaxDuration
	if most == nil || most.Off || run.StartedAt.IsZero() {
		return time.Time{}, false
	}
	return run.StartedAt.Add(time.Duration(most.Seconds) * time.Second), true
}

// mostAhead is how far ahead anything is due: the store takes what is due
// much later for a sign that the clock was set back.
const mostAhead = time.Minute

// soonest is the earliest of some times, of which zero ones do not count.
func soonest(now time.Time, times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if limit := now.Add(mostAhead); first.After(limit) {
		return limit
	}
	return first
}

// told sorts those that leave: who may have requests finishes them first.
func told(rs []dstack.Replica) (drop, drain []dstack.ReplicaID) {
	for _, r := range rs {
		switch {
		case r.Status.IsFinished() || leaving(r):
		case serving(r):
			drain = append(drain, r.ID)
		default:
			drop = append(drop, r.ID)
		}
	}
	return drop, drain
}

// serving says that requests may be in flight to a replica.
func serving(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaReady || r.Status == dstack.ReplicaUnhealthy
}

// leaving says that a replica was told to end.
func leaving(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating
}

// ends tells all of a run's replicas to end.
func ends(seen RunFacts, why dstack.Reason, ending dstack.Ending) RunStep {
	step := RunStep{To: dstack.RunTerminating, Reason: why, Ending: ending, StopReason: why, Graceful: true,
		DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	step.Terminate, step.Drain = told(seen.Replicas)
	return step
}

// runStopped ends a run by its user's wish.
func runStopped(seen RunFacts) RunStep {
	if seen.Run.Stop != dstack.StopAbort {
		return ends(seen, "stopped by its user", dstack.EndStopped)
	}
	step := ends(seen, "aborted by its user", dstack.EndAborted)
	step.Terminate, step.Drain, step.Graceful = hurried(seen), nil, false
	return step
}

// hurried are those that an abort ends at once.
func hurried(seen RunFacts) (ids []dstack.ReplicaID) {
	for _, r := range seen.Replicas {
		if !r.Status.IsFinished() && (r.Status != dstack.ReplicaTerminating || r.Graceful) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// runTimedOut ends a run that has lived for as long as it may.
func runTimedOut(seen RunFacts) RunStep {
	most := spec.Merge(seen.Run.Spec.Configuration, seen.Run.Spec.Profile).MaxDuration
	return ends(seen, dstack.Reason(fmt.Sprintf("it ran for its max_duration, %s", most.Seconds)), dstack.EndDuration)
}

// runGivesUp ends a run of which no replica was ever ready.
func runGivesUp(seen RunFacts, failed dstack.Replica) RunStep {
	ending := dstack.EndFailed
	if failed.Attempt == "" {
		ending = dstack.EndNoCapacity
	}
	step := ends(seen, failed.Reason, ending)
	step.StopReason = "another replica could not start"
	return step
}

// runFallsBack makes the last revision that has served the present one again:
// a newer one has a replica that gave up before it served. What runs of the
// earlier one was not touched but for what the new one had taken over; the
// next look asks for that again.
func runFallsBack(seen RunFacts, c crew, now time.Time) RunStep {
	failed := c.failed[0]
	back := &Rollback{ToRevision: seen.Run.StableRevision, Reason: failed.Reason, Replica: failed.Num}
	if n := len(failed.PastAttempts); n > 0 {
		back.LastOutput = failed.PastAttempts[n-1].LastOutput
	}
	return RunStep{
		To: dstack.RunActive, DesiredReplicas: seen.DesiredReplicas, Rollback: back, Due: now,
		Reason: dstack.Reason(fmt.Sprintf("revision %d did not become ready, rolled back to %d", seen.Run.Revision, seen.Run.StableRevision)),
	}
}

// runTerminating waits for the replicas to be gone. An abort that comes
// later makes the rest end at once.
func runTerminating(seen RunFacts) RunStep {
	run := seen.Run
	left := 0
	for _, r := range seen.Replicas {
		if !r.Status.IsFinished() {
			left++
		}
	}
	if left > 0 {
		step := ends(seen, run.Reason, run.Ending)
		if run.Stop == dstack.StopAbort {
			step.Terminate, step.Drain, step.Graceful = hurried(seen), nil, false
		}
		return step
	}
	step := RunStep{To: dstack.RunTerminated, Reason: run.Reason, Ending: run.Ending, DesiredReplicas: run.DesiredReplicas}
	if run.Ending == dstack.EndFailed || run.Ending == dstack.EndNoCapacity {
		step.To = dstack.RunFailed
	}
	return step
}
