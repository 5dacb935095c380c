package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// DecideRun decides the next step of a run. A run that begins to terminate is
// due again at once, because there may be no replica to wait for. It fails on
// an unknown status.
func DecideRun(seen RunFacts, now time.Time) (RunStep, error) {
	var step RunStep
	known := seen.Run.StableRevision
	seen.Run.StableRevision = stableRevision(seen)
	var lostAt time.Time
	seen.displaced, lostAt = seen.findDisplaced(now)
	switch seen.Run.Status {
	case dstack.RunSubmitted, dstack.RunActive:
		step = runActive(seen, now)
		step.Due = earliestDue(now, step.Due, lostAt)
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

// runActive moves the replicas towards the desired number at the present
// template. Replicas of older templates leave as new ones become ready.
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
		if len(c.current) == 0 && !c.hasServingOutdated() { // no replica can become ready, and none serves
			return runGivesUp(seen, c.failed[0])
		}
	}
	groups := seen.splitByGroup()
	step := RunStep{To: dstack.RunActive, DesiredReplicas: seen.DesiredReplicas, DesiredByGroup: seen.desiredByGroup(), DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	if step.Started = hasStarted(seen); step.Started {
		seen.Run.StartedAt = now
		over, _ = deadlineOf(seen.Run)
	}
	step.Ready = c.hasTakenOver(seen, groups)
	step.Due = earliestDue(now, seen.ScaleDue, over)
	if len(c.outdated) > 0 {
		step.Reason = dstack.Reason(fmt.Sprintf("updating to revision %d", seen.Run.Revision))
		if seen.Run.LatestRevision > seen.Run.Revision {
			step.Reason = dstack.Reason(fmt.Sprintf("going back to revision %d", seen.Run.Revision))
		}
	}
	if step.Reason == "" {
		step.Reason = describeDisplaced(seen.displaced, seen.Replicas)
	}
	for _, group := range groups {
		if !group.isRemoved {
			sortReplicas(group.RunFacts).addMissing(group, seen.takenNums(group.name), &step)
		}
		leave, why := group.selectLeaving()
		terminate, drain := splitByInFlight(leave)
		switch {
		case len(terminate)+len(drain) == 0:
		case step.StopReason == "":
			step.Terminate, step.Drain, step.StopReason = terminate, drain, why
		default: // for another reason than those of an earlier group: in the next step
			step.Due = now
		}
	}
	step.Graceful = true
	return step
}

// selectLeaving returns the replicas of a group that leave now, and why.
func (seen groupFacts) selectLeaving() ([]dstack.Replica, dstack.Reason) {
	c := sortReplicas(seen.RunFacts)
	if len(c.outdated) > 0 {
		why := dstack.Reason(fmt.Sprintf("replaced by revision %d", seen.Run.Revision))
		return c.selectOutdated(seen.RunFacts), why
	}
	if seen.isRemoved {
		return nil, ""
	}
	if leave := c.selectDisplaced(seen.DesiredReplicas, seen.displaced); len(leave) > 0 {
		return leave, "replaced: " + seen.displaced[leave[0].ID].reason
	}
	more := len(c.steady) - seen.DesiredReplicas
	if more <= 0 {
		return nil, ""
	}
	leave := c.pickRemovals(c.steady, more)
	if why := seen.explainSpare(c.steady, leave); why != "" {
		return leave, why
	}
	if seen.ScaleReason != "" {
		return leave, "scaled down: " + seen.ScaleReason
	}
	return leave, "not wanted any more"
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

// hasStarted reports whether a run's first replica has just got a machine.
func hasStarted(seen RunFacts) bool {
	for _, r := range seen.Replicas {
		if r.Instance != "" {
			return seen.Run.StartedAt.IsZero()
		}
	}
	return false
}

// deadlineOf returns when a run's max_duration is over. It counts from when the
// first replica got a machine.
func deadlineOf(run dstack.Run) (over time.Time, limited bool) {
	limit := spec.Merge(run.Spec.Configuration, run.Spec.Profile).MaxDuration
	if limit == nil || limit.Off || run.StartedAt.IsZero() {
		return time.Time{}, false
	}
	return run.StartedAt.Add(time.Duration(limit.Seconds) * time.Second), true
}

// maxDue is how far ahead anything is due. The store treats a row that is due
// much later as written before the clock was set back.
const maxDue = time.Minute

// earliestDue returns the earliest of the times that are not zero, at most maxDue
// ahead.
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

// splitByInFlight splits replicas that are to end: drop contains the replicas to
// terminate at once, drain the replicas that may have requests in flight and
// drain first.
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

// isServing reports whether requests may be in flight to a replica.
func isServing(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaReady || r.Status == dstack.ReplicaUnhealthy
}

// isLeaving reports whether a replica drains or terminates.
func isLeaving(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating
}

// terminateAll ends a run and all its replicas.
func terminateAll(seen RunFacts, why dstack.Reason, ending dstack.Ending) RunStep {
	step := RunStep{To: dstack.RunTerminating, Reason: why, Ending: ending, StopReason: why, Graceful: true,
		DrainTimeout: seen.Run.Spec.Configuration.EffectiveDrainTimeout()}
	step.Terminate, step.Drain = splitByInFlight(seen.Replicas)
	return step
}

// runStopped ends a run that its user stopped or aborted.
func runStopped(seen RunFacts) RunStep {
	if seen.Run.Stop != dstack.StopAbort {
		return terminateAll(seen, "stopped by its user", dstack.EndStopped)
	}
	step := terminateAll(seen, "aborted by its user", dstack.EndAborted)
	step.Terminate, step.Drain, step.Graceful = toKillNow(seen), nil, false
	return step
}

// toKillNow returns the replicas that an abort terminates without a grace period.
func toKillNow(seen RunFacts) (ids []dstack.ReplicaID) {
	for _, r := range seen.Replicas {
		if !r.Status.IsFinished() && (r.Status != dstack.ReplicaTerminating || r.Graceful) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// runTimedOut ends a run whose max_duration is over.
func runTimedOut(seen RunFacts) RunStep {
	limit := spec.Merge(seen.Run.Spec.Configuration, seen.Run.Spec.Profile).MaxDuration
	return terminateAll(seen, dstack.Reason(fmt.Sprintf("it ran for its max_duration, %s", limit.Seconds)), dstack.EndDuration)
}

// runGivesUp ends a run none of whose replicas was ever ready.
func runGivesUp(seen RunFacts, failed dstack.Replica) RunStep {
	ending := dstack.EndFailed
	if failed.Attempt == "" || failed.Instance == "" { // it failed while it waited for a place
		ending = dstack.EndNoCapacity
	}
	step := terminateAll(seen, failed.Reason, ending)
	step.StopReason = "another replica could not start"
	return step
}

// runRollsBack returns a run to its stable revision: a replica of the present one
// failed before the revision served. Replicas of the stable revision that have
// left meanwhile are added by the next decision.
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

// runTerminating waits until all replicas have finished. A later abort
// terminates the rest without a grace period.
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
