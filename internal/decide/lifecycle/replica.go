package lifecycle

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const (
	maxFirstAttempts  = 3                // attempts of a replica whose template has not served, where the run asks for no retry
	stableAfter       = time.Minute      // ready for so long, a replica's earlier crashes are forgotten
	firstBackoff      = time.Second      // doubles with each crash
	maxBackoff        = time.Minute      // between two attempts
	placeInterval     = 5 * time.Second  // between two searches for a place
	replacedDelay     = 2 * time.Second  // before a replica that may have been replaced looks for a place
	lookInterval      = 10 * time.Second // between two decisions, in case a wake was lost
	maxDrain          = time.Hour        // the configuration allows no longer drain_timeout
	allUnhealthyGrace = 2 * time.Minute  // before a replica is restarted while all fail their probes
)

// DecideReplica decides the next step of a replica. It fails on an unknown status.
func DecideReplica(seen ReplicaFacts, now time.Time) (ReplicaStep, error) {
	if step, ok := replicaEnding(seen, now); ok {
		return step, nil
	}
	if isAway(seen.Instance) {
		if step, ok := replicaAway(seen, now); ok {
			return step, nil
		}
	}
	switch seen.Replica.Status {
	case dstack.ReplicaWaiting:
		return replicaWaiting(seen, now), nil
	case dstack.ReplicaStarting:
		return replicaStarting(seen, now), nil
	case dstack.ReplicaReady:
		return replicaReady(seen, now), nil
	case dstack.ReplicaUnhealthy:
		return replicaUnhealthy(seen, now), nil
	case dstack.ReplicaRestarting:
		return replicaRestarting(seen, now), nil
	case dstack.ReplicaDraining:
		return replicaDraining(seen, now), nil
	case dstack.ReplicaTerminating:
		return replicaTerminating(seen, now), nil
	case dstack.ReplicaTerminated, dstack.ReplicaFailed:
		return seen.stayWith(""), nil
	default:
		return ReplicaStep{}, fmt.Errorf("replica %s has the unknown status %q", seen.Replica.ID, seen.Replica.Status)
	}
}

// stayWith returns a step that changes nothing but the reason, if one is given.
func (seen ReplicaFacts) stayWith(why dstack.Reason) ReplicaStep {
	r := seen.Replica
	return ReplicaStep{To: r.Status, Reason: cmp.Or(why, r.Reason), Crashes: r.Crashes, FirstCrashAt: r.FirstCrashAt, RetryAt: r.RetryAt}
}

// moveTo returns a step to another status that keeps the count of crashes.
func (seen ReplicaFacts) moveTo(to dstack.ReplicaStatus, why dstack.Reason) ReplicaStep {
	step := seen.stayWith("")
	step.To, step.Reason, step.RetryAt = to, why, time.Time{}
	return step
}

// waitForMachine makes a replica whose machine is gone wait for another. It is
// due at once: no report and no change of its instance would wake it. One that was replaced
// meanwhile leaves its run the time to end it.
func (seen ReplicaFacts) waitForMachine(now time.Time) ReplicaStep {
	why := dstack.Reason("its machine is gone")
	if i := seen.Instance; i != nil && i.Reason != "" {
		why += ": " + i.Reason
	}
	step := seen.moveTo(dstack.ReplicaWaiting, why)
	if rep := seen.Report; rep != nil && rep.State != dstack.AttemptAbsent {
		step.EndedAttempt = endAttempt(seen, now, why, dstack.AttemptAbsent)
	}
	step.Due = now
	if seen.Replica.Status == dstack.ReplicaUnhealthy {
		step.Due = now.Add(replacedDelay)
	}
	return step
}

// hasServedTemplate reports whether the replica's template has served: its replicas
// are then restarted for as long as the run lives. Older templates count as
// served, because a failed update returns to them, and so do groups that an update
// does not change.
func (seen ReplicaFacts) hasServedTemplate() bool {
	return !seen.Run.ReadyAt.IsZero() || seen.Replica.TemplateRevision != seen.Run.TemplateRevision ||
		seen.Run.Groups[seen.Replica.Group].Proven
}

// canRollBack reports whether an earlier revision can serve again if this one
// fails. Then a replica is not retried for long.
func (seen ReplicaFacts) canRollBack() bool {
	return !seen.hasServedTemplate() && seen.Run.StableRevision > 0
}

func replicaWaiting(seen ReplicaFacts, now time.Time) ReplicaStep {
	if len(seen.Placements) > 0 {
		step := seen.moveTo(dstack.ReplicaStarting, "")
		step.Placement, step.NewAttempt = &seen.Placements[0], true
		return step
	}
	if seen.Blocked {
		step := seen.stayWith("waits until an older replica of the same service has stopped: " +
			seen.explainNoPlace())
		step.Blocked, step.Due = true, now.Add(placeInterval)
		return step
	}
	why := seen.explainNoPlace()
	since, patience := seen.Replica.Since, seen.Limits.PlaceTimeout
	if seen.hasNoNode() { // it has waited for one already
		since, patience = seen.Replica.SubmittedAt, 0
	}
	isOver := now.Sub(since) >= patience
	events, window := retryRule(seen.Run)
	if lost := interruptedAt(seen.Replica); events[spec.EventInterruption] && !lost.IsZero() && now.Sub(lost) < window {
		isOver = false
	}
	if events[spec.EventNoCapacity] {
		isOver = now.Sub(waitingSince(seen.Replica)) >= window
	}
	if !seen.hasServedTemplate() && isOver {
		return seen.moveTo(dstack.ReplicaFailed, why)
	}
	step := seen.stayWith(why)
	step.Due = now.Add(placeInterval)
	return step
}

// explainNoPlace returns why no machine suits.
func (seen ReplicaFacts) explainNoPlace() dstack.Reason {
	if len(seen.Rejections) == 0 {
		return "no machine is configured for this project"
	}
	parts := make([]string, len(seen.Rejections))
	for i, r := range seen.Rejections {
		parts[i] = r.Offer.Type + ": " + r.String()
	}
	if more := seen.Rejected - len(seen.Rejections); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return dstack.Reason("no machine suits: " + strings.Join(parts, " · "))
}

func retryRule(run dstack.Run) (map[string]bool, time.Duration) {
	events, window := spec.Merge(run.Spec.Configuration, run.Spec.Profile).RetryRule()
	on := map[string]bool{}
	for _, e := range events {
		on[e] = true
	}
	return on, time.Duration(window) * time.Second
}

// replicaStarting follows the engine's reports until the replica is ready.
func replicaStarting(seen ReplicaFacts, now time.Time) ReplicaStep {
	rep := seen.Report
	if isLost(seen.Instance) {
		return seen.waitForMachine(now)
	}
	if rep == nil {
		step := seen.stayWith("")
		if i := seen.Instance; isRented(*i) && i.Status == dstack.InstanceCreating {
			step = seen.stayWith(i.Reason)
		}
		step.Due = now.Add(lookInterval)
		return step
	}
	switch rep.State {
	case dstack.AttemptExited, dstack.AttemptRefused:
		return decideCrash(seen, now)
	case dstack.AttemptRunning:
		if healthy, _ := seen.checkHealth(); healthy {
			return seen.moveTo(dstack.ReplicaReady, seen.warnOfOpenListeners())
		}
		return replicaNotReady(seen, now)
	case dstack.AttemptPulling, dstack.AttemptStarting, dstack.AttemptAbsent:
		step := seen.stayWith(dstack.Reason(rep.Progress))
		step.Due = now.Add(lookInterval)
		return step
	default:
		return seen.stayWith(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.State)))
	}
}

// isLost reports whether an instance will never run anything again.
func isLost(i *dstack.Instance) bool {
	return i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted
}

// replicaNotReady waits for a running replica to become ready, until StartTimeout
// after its start. While its engine does not answer, the report is too old to say that it is late.
func replicaNotReady(seen ReplicaFacts, now time.Time) ReplicaStep {
	since := seen.Report.StartedAt
	if since.Before(seen.since()) {
		since = seen.since()
	}
	_, why := seen.checkHealth()
	deadline := since.Add(seen.Limits.StartTimeout)
	if now.Before(deadline) || !seen.isHeardSince(deadline) {
		step := seen.stayWith("running; " + why + " yet")
		if seen.Report.Ready || seen.explainClosedPort() != "" {
			step = seen.stayWith("running; " + why)
		}
		step.Due = now.Add(syncCalm)
		if left := deadline.Sub(now); left > 0 {
			step.Due = now.Add(min(left, lookInterval))
		}
		return step
	}
	switch {
	case seen.Report.Ready && seen.hasModelCheck():
		why = dstack.Reason(fmt.Sprintf("its model was not loaded within %s: %s; set `probes` if it is "+
			"ready in spite of that", seen.Limits.StartTimeout, why))
	case seen.Report.Ready:
		why = dstack.Reason(fmt.Sprintf("its probes did not succeed within %s: %s", seen.Limits.StartTimeout, why))
	default:
		closed := fmt.Sprintf("port %d did not open within %s", seen.port(), seen.Limits.StartTimeout)
		if explained := seen.explainClosedPort(); explained != "" {
			closed += ": " + string(explained)
		}
		why = dstack.Reason(closed)
	}
	return decideRetry(seen, now, why, dstack.AttemptRunning, true)
}

// replicaReady makes a replica that does not answer unhealthy, so that it gets no
// requests. Only an attempt that ended is restarted at once.
func replicaReady(seen ReplicaFacts, now time.Time) ReplicaStep {
	if step, ended := seen.checkEnded(now); ended {
		return step
	}
	if seen.Report == nil || seen.Report.State != dstack.AttemptRunning {
		return seen.stayWith("")
	}
	if healthy, why := seen.checkHealth(); !healthy {
		step := seen.moveTo(dstack.ReplicaUnhealthy, why)
		step.Due = now.Add(lookInterval)
		return step
	}
	step := seen.stayWith("")
	step.Reason = seen.warnOfOpenListeners()
	return step
}

// checkEnded returns the step for an attempt that has ended or lost its machine.
// ended is false when the attempt may still run.
func (seen ReplicaFacts) checkEnded(now time.Time) (step ReplicaStep, ended bool) {
	rep := seen.Report
	if isLost(seen.Instance) {
		return seen.waitForMachine(now), true
	}
	if rep == nil {
		return ReplicaStep{}, false
	}
	switch rep.State {
	case dstack.AttemptExited, dstack.AttemptRefused, dstack.AttemptAbsent:
		return decideCrash(seen, now), true
	case dstack.AttemptRunning, dstack.AttemptPulling, dstack.AttemptStarting:
		return ReplicaStep{}, false
	default:
		return seen.stayWith(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.State))), true
	}
}

// replicaRestarting waits for the end of the back-off and of the last attempt:
// two attempts of one replica never run at once.
func replicaRestarting(seen ReplicaFacts, now time.Time) ReplicaStep {
	r := seen.Replica
	switch {
	case isLost(seen.Instance):
		return seen.waitForMachine(now)
	case now.Before(r.RetryAt) && r.RetryAt.Sub(now) <= maxBackoff: // else the clock was set back
		step := seen.stayWith("")
		step.Due = r.RetryAt
		return step
	case seen.Report != nil && !seen.Report.State.IsOver():
		step := seen.stayWith("")
		step.Due = now.Add(lookInterval)
		return step
	default:
		step := seen.moveTo(dstack.ReplicaStarting, r.Reason)
		step.NewAttempt = true
		return step
	}
}

// replicaDraining waits for the requests in flight, at most until the drain
// deadline. Without reports of the gateways it waits until the deadline.
func replicaDraining(seen ReplicaFacts, now time.Time) ReplicaStep {
	r, rep := seen.Replica, seen.Report
	load, deadline := seen.Load, seen.drainDeadline()
	switch {
	case r.Attempt == "" || isLost(seen.Instance) || rep != nil && rep.State.IsOver():
		step := seen.moveTo(dstack.ReplicaTerminating, r.Reason)
		step.Due = now // no report and no change of its instance may come
		return step
	case load.Drained[r.ID] || isLostHost(seen.Instance, now): // of a lost host, no request in flight can be answered
		return seen.endOnEngine(r.Reason, now)
	case !now.Before(deadline) || deadline.Sub(now) > maxDrain: // else the clock was set back
		why := r.Reason
		if n := load.Replicas[r.ID]; n > 0 {
			why += dstack.Reason(fmt.Sprintf("; %d requests in flight were not waited for any longer", n))
		}
		return seen.endOnEngine(why, now)
	}
	step := seen.stayWith("")
	step.Due = now.Add(min(deadline.Sub(now), lookInterval))
	if isAway(seen.Instance) {
		step.Due = earliestDue(now, step.Due, lostAt(*seen.Instance, now))
	}
	return step
}

// endOnEngine terminates a replica that its engine may run. The next report makes it due;
// a machine that is away sends none.
func (seen ReplicaFacts) endOnEngine(why dstack.Reason, now time.Time) ReplicaStep {
	step := seen.moveTo(dstack.ReplicaTerminating, why)
	if isAway(seen.Instance) {
		step.Due = now
	}
	return step
}

// replicaTerminating waits until the replica no longer runs on any machine: its
// engine was asked after the decision and does not have the attempt. It does not wait
// for a remote machine that is lost: when that comes back, what the replica left there
// is stopped before anything else starts, because no replica has it.
func replicaTerminating(seen ReplicaFacts, now time.Time) ReplicaStep {
	r, rep := seen.Replica, seen.Report
	never := r.Instance == "" || r.Attempt == "" || rep == nil && isUnprepared(seen.Instance)
	gone := seen.Instance == nil || seen.Instance.Status == dstack.InstanceDeleted || HasEnded(*seen.Instance, now)
	silent := rep != nil && rep.State == dstack.AttemptAbsent && !rep.At.Before(r.Since)
	if never || gone || silent {
		why := r.Reason
		if !never && !silent && seen.isAbandoned() {
			why += "; its engine is not configured any more, or does not answer: what it started may still run"
		}
		return seen.moveTo(dstack.ReplicaTerminated, why)
	}
	if isLostHost(seen.Instance, now) || isUnreachable(seen.Instance, now) {
		return seen.moveTo(dstack.ReplicaTerminated, r.Reason+dstack.Reason(fmt.Sprintf(
			"; %s does not answer: what still runs there is stopped when it comes back", describeMachine(*seen.Instance))))
	}
	step := seen.stayWith("")
	step.Due = now.Add(lookInterval)
	if isAway(seen.Instance) {
		step.Due = earliestDue(now, step.Due, lostAt(*seen.Instance, now))
	}
	return step
}

// isUnprepared reports whether a machine is rented and has never been used: nothing was started there. If a crash of the server
// kept that from being known, the attempt has no replica any more, and is stopped.
func isUnprepared(i *dstack.Instance) bool { return i != nil && isRented(*i) && !hasAnswered(*i) }

// isAbandoned reports whether the replica's machine was given up before its attempt had
// ended: an owned machine without a backend, which stays. See retireInstance.
func (seen ReplicaFacts) isAbandoned() bool {
	return seen.Instance != nil && !isRented(*seen.Instance) && seen.Report != nil && !seen.Report.State.IsOver()
}
