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
	known := seen.Run.StableRevision
	seen.Run.StableRevision = stableRevision(seen)
	switch seen.Run.Status {
	case dstack.RunSubmitted, dstack.RunActive:
		step = runActive(seen, now)
	case dstack.RunTerminating:
		step = runTerminating(seen)
	case dstack.RunTerminated, dstack.RunFailed:
		step = RunStep{To: seen.Run.Status, Reason: seen.Run.Reason, Ending: seen.Run.Ending, DesiredReplicas: seen.Run.DesiredReplicas}
	default:
		return RunStep{}, fmt.Errorf("run %s has the unknown status %q", seen.Run.ID, seen.Run.Status)
	}
	if seen.Run.StableRevision != known {
		step.StableRevision = seen.Run.StableRevision
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
	over, limited := deadlineOf(seen.Run)
	if limited && !now.Before(over) {
		return runTimedOut(seen)
	}
	c := sortReplicas(seen)
	if seen.Run.ReadyAt.IsZero() && len(c.failed) > 0 {
		if seen.Run.StableRevision > 0 {
			return runRollsBack(seen, c, now)
		}
		if len(c.current) == 0 && !c.hasServingOutdated() { // nothing is left that could become ready, or serves
			return runGivesUp(seen, c.failed[0])
		}
	}
	step := RunStep{To: dstack.RunActive, DesiredReplicas: seen.DesiredReplicas, DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	step.Started = hasStarted(seen)
	step.Ready = c.hasTakenOver(seen)
	step.Due = earliestDue(now, seen.ScaleDue, over)
	c.addMissing(seen, &step)
	if len(c.outdated) > 0 {
		step.Reason = dstack.Reason(fmt.Sprintf("updating to revision %d", seen.Run.Revision))
		if seen.Run.LatestRevision > seen.Run.Revision {
			step.Reason = dstack.Reason(fmt.Sprintf("going back to revision %d", seen.Run.Revision))
		}
		step.StopReason = dstack.Reason(fmt.Sprintf("replaced by revision %d", seen.Run.Revision))
		step.Terminate, step.Drain = splitByInFlight(c.selectOutdated(seen))
	} else if more := len(c.current) - seen.DesiredReplicas; more > 0 {
		step.StopReason = "not wanted any more"
		if seen.ScaleReason != "" {
			step.StopReason = "scaled down: " + seen.ScaleReason
		}
		step.Terminate, step.Drain = splitByInFlight(c.pickRemovals(c.current, more))
	}
	step.Graceful = true
	return step
}

// stableRevision returns the revision that the run rolls back to when its
// present one fails; 0: none. A replica of an earlier template that becomes
// ready only after the present revision was applied makes its revision stable:
// otherwise a broken update could be neither rolled back nor given up.
func stableRevision(seen RunFacts) int {
	run := seen.Run
	if !run.ReadyAt.IsZero() || run.StableRevision > 0 {
		return run.StableRevision
	}
	latest := 0
	for _, r := range seen.Replicas {
		if r.TemplateRevision != run.TemplateRevision && !r.ReadyAt.IsZero() {
			latest = max(latest, r.Revision)
		}
	}
	return latest
}

// hasStarted says that a run's first replica has a machine.
func hasStarted(seen RunFacts) bool {
	for _, r := range seen.Replicas {
		if r.Instance != "" {
			return seen.Run.StartedAt.IsZero()
		}
	}
	return false
}

// deadlineOf is when a run has lived for as long as it may. It counts from when its
// first replica had a machine.
func deadlineOf(run dstack.Run) (over time.Time, limited bool) {
	most := spec.Merge(run.Spec.Configuration, run.Spec.Profile).MaxDuration
	if most == nil || most.Off || run.StartedAt.IsZero() {
		return time.Time{}, false
	}
	return run.StartedAt.Add(time.Duration(most.Seconds) * time.Second), true
}

// maxDue is how far ahead anything is due: the store takes what is due
// much later for a sign that the clock was set back.
const maxDue = time.Minute

// earliestDue is the earliest of some times, of which zero ones do not count.
func earliestDue(now time.Time, times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if limit := now.Add(maxDue); first.After(limit) {
		return limit
	}
	return first
}

// splitByInFlight sorts those that leave: who may have requests finishes them first.
func splitByInFlight(rs []dstack.Replica) (drop, drain []dstack.ReplicaID) {
	for _, r := range rs {
		switch {
		case r.Status.IsFinished() || isLeaving(r):
		case isServing(r):
			drain = append(drain, r.ID)
		default:
			drop = append(drop, r.ID)
		}
	}
	return drop, drain
}

// isServing says that requests may be in flight to a replica.
func isServing(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaReady || r.Status == dstack.ReplicaUnhealthy
}

// isLeaving says that a replica was told to end.
func isLeaving(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating
}

// terminateAll tells all of a run's replicas to end.
func terminateAll(seen RunFacts, why dstack.Reason, ending dstack.Ending) RunStep {
	step := RunStep{To: dstack.RunTerminating, Reason: why, Ending: ending, StopReason: why, Graceful: true,
		DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	step.Terminate, step.Drain = splitByInFlight(seen.Replicas)
	return step
}

// runStopped ends a run by its user's wish.
func runStopped(seen RunFacts) RunStep {
	if seen.Run.Stop != dstack.StopAbort {
		return terminateAll(seen, "stopped by its user", dstack.EndStopped)
	}
	step := terminateAll(seen, "aborted by its user", dstack.EndAborted)
	step.Terminate, step.Drain, step.Graceful = toKillNow(seen), nil, false
	return step
}

// toKillNow are those that an abort ends at once.
func toKillNow(seen RunFacts) (ids []dstack.ReplicaID) {
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
	return terminateAll(seen, dstack.Reason(fmt.Sprintf("it ran for its max_duration, %s", most.Seconds)), dstack.EndDuration)
}

// runGivesUp ends a run of which no replica was ever ready.
func runGivesUp(seen RunFacts, failed dstack.Replica) RunStep {
	ending := dstack.EndFailed
	if failed.Attempt == "" {
		ending = dstack.EndNoCapacity
	}
	step := terminateAll(seen, failed.Reason, ending)
	step.StopReason = "another replica could not start"
	return step
}

// runRollsBack makes the last revision that has served the present one again:
// a newer one has a replica that gave up before it served. What runs of the
// earlier one was not touched but for what the new one had taken over; the
// next look asks for that again.
func runRollsBack(seen RunFacts, c rollout, now time.Time) RunStep {
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
		step := terminateAll(seen, run.Reason, run.Ending)
		if run.Stop == dstack.StopAbort {
			step.Terminate, step.Drain, step.Graceful = toKillNow(seen), nil, false
		}
		return step
	}
	step := RunStep{To: dstack.RunTerminated, Reason: run.Reason, Ending: run.Ending, DesiredReplicas: run.DesiredReplicas}
	if run.Ending == dstack.EndFailed || run.Ending == dstack.EndNoCapacity {
		step.To = dstack.RunFailed
	}
	return step
}
