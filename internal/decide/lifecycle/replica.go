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
	maxFirstAttempts  = 3                // attempts of a replica whose run was never ready and asks for no retry
	stableAfter       = time.Minute      // ready for so long, earlier crashes are forgotten
	firstBackoff      = time.Second      // doubles with each crash
	maxBackoff        = time.Minute      //
	placeInterval     = 5 * time.Second  // between looks for a place
	lookInterval      = 10 * time.Second // in case that a wake was lost
	maxDrain          = time.Hour        // the language allows no longer drain_timeout
	allUnhealthyGrace = 2 * time.Minute  // before one of replicas that all fail their probes is restarted
)

// DecideReplica decides the next step of a replica.
func DecideReplica(seen ReplicaFacts, now time.Time) (ReplicaStep, error) {
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

// stayWith keeps everything, with another reason if one is given.
func (seen ReplicaFacts) stayWith(why dstack.Reason) ReplicaStep {
	r := seen.Replica
	return ReplicaStep{To: r.Status, Reason: cmp.Or(why, r.Reason), Crashes: r.Crashes, FirstCrashAt: r.FirstCrashAt, RetryAt: r.RetryAt}
}

// go moves to another status, keeping the count of crashes.
func (seen ReplicaFacts) moveTo(to dstack.ReplicaStatus, why dstack.Reason) ReplicaStep {
	step := seen.stayWith("")
	step.To, step.Reason, step.RetryAt = to, why, time.Time{}
	return step
}

// waitForMachine makes a replica whose machine is gone wait for another. It is
// due at once: no report and no change of its instance would wake it.
func (seen ReplicaFacts) waitForMachine(now time.Time) ReplicaStep {
	step := seen.moveTo(dstack.ReplicaWaiting, "its machine is gone")
	step.Due = now
	return step
}

// hasServedTemplate says that the replica's shape has served: from then on its replicas
// are restarted for as long as the run lives. Those of an older one are what
// a failed update falls back to.
func (seen ReplicaFacts) hasServedTemplate() bool {
	return !seen.Run.ReadyAt.IsZero() || seen.Replica.TemplateRevision != seen.Run.TemplateRevision
}

// canRollBack says that an earlier revision serves, or can serve again, should
// this one fail. Then trying for long helps nobody.
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
		step := seen.stayWith("waits for an older replica of the same service to leave: " + explainNoPlace(seen.Rejections))
		step.Blocked, step.Due = true, now.Add(placeInterval)
		return step
	}
	why := explainNoPlace(seen.Rejections)
	patience := seen.Limits.PlaceTimeout
	if events, window := retryRule(seen.Run); events[spec.EventNoCapacity] {
		patience = window
	}
	if !seen.hasServedTemplate() && now.Sub(seen.Replica.Since) >= patience {
		return seen.moveTo(dstack.ReplicaFailed, why)
	}
	step := seen.stayWith(why)
	step.Due = now.Add(placeInterval)
	return step
}

// explainNoPlace says why no machine suits.
func explainNoPlace(misfits []dstack.Rejection) dstack.Reason {
	if len(misfits) == 0 {
		return "no machine is configured for this project"
	}
	parts := make([]string, len(misfits))
	for i, m := range misfits {
		parts[i] = m.Offer.Type + ": " + m.Reason
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

// replicaStarting follows what the engine reports until the port accepts.
func replicaStarting(seen ReplicaFacts, now time.Time) ReplicaStep {
	rep := seen.Report
	if isLost(seen.Instance) {
		return seen.waitForMachine(now)
	}
	if rep == nil {
		step := seen.stayWith("")
		step.Due = now.Add(lookInterval)
		return step
	}
	switch rep.State {
	case dstack.AttemptExited, dstack.AttemptRefused:
		return decideCrash(seen, now)
	case dstack.AttemptRunning:
		if healthy, _ := seen.checkHealth(); healthy {
			return seen.moveTo(dstack.ReplicaReady, "")
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

// isLost says that an instance will never run anything again.
func isLost(i *dstack.Instance) bool {
	return i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted
}

// replicaNotReady waits for a running replica to answer, up to StartTimeout
// since it began.
func replicaNotReady(seen ReplicaFacts, now time.Time) ReplicaStep {
	since := seen.Report.StartedAt
	if since.Before(seen.Replica.Since) {
		since = seen.Replica.Since
	}
	_, why := seen.checkHealth()
	deadline := since.Add(seen.Limits.StartTimeout)
	if now.Before(deadline) {
		step := seen.stayWith("running; " + why + " yet")
		if seen.Report.Ready {
			step = seen.stayWith("running; " + why)
		}
		step.Due = now.Add(min(deadline.Sub(now), lookInterval))
		return step
	}
	if seen.Report.Ready {
		why = dstack.Reason(fmt.Sprintf("its probes did not succeed within %s: %s", seen.Limits.StartTimeout, why))
	} else {
		why = dstack.Reason(fmt.Sprintf("port %d did not open within %s", seen.Run.Spec.Configuration.Port.Container, seen.Limits.StartTimeout))
	}
	return decideRetry(seen, now, why, dstack.AttemptRunning, true)
}

// replicaReady watches what serves. One that does not answer gets no requests
// from then on; only its own end restarts it at once.
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
	return seen.stayWith("")
}

// checkEnded tells what has ended from what may still run: the step for the former.
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

// replicaRestarting waits out the back-off, and for the last attempt to be
// over: two attempts of one replica never run at once.
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

// replicaDraining waits for what is in flight, for as long as the service
// allows. Without word from the gateways it waits for all of that.
func replicaDraining(seen ReplicaFacts, now time.Time) ReplicaStep {
	r, rep := seen.Replica, seen.Report
	load := seen.Load
	switch {
	case r.Attempt == "" || isLost(seen.Instance) || rep != nil && rep.State.IsOver():
		return seen.moveTo(dstack.ReplicaTerminating, r.Reason)
	case load.Drained[r.ID]:
		return seen.moveTo(dstack.ReplicaTerminating, r.Reason)
	case !now.Before(r.DrainDeadline) || r.DrainDeadline.Sub(now) > maxDrain: // else the clock was set back
		why := r.Reason
		if n := load.Replicas[r.ID]; n > 0 {
			why += dstack.Reason(fmt.Sprintf("; %d requests in flight were not waited for any longer", n))
		}
		return seen.moveTo(dstack.ReplicaTerminating, why)
	}
	step := seen.stayWith("")
	step.Due = now.Add(min(r.DrainDeadline.Sub(now), lookInterval))
	return step
}

// replicaTerminating waits until no machine can still be running it: its
// engine was asked after the decision, and had nothing of it.
func replicaTerminating(seen ReplicaFacts, now time.Time) ReplicaStep {
	r, rep := seen.Replica, seen.Report
	never := r.Instance == "" || r.Attempt == ""
	gone := seen.Instance == nil || seen.Instance.Status == dstack.InstanceDeleted
	silent := rep != nil && rep.State == dstack.AttemptAbsent && !rep.At.Before(r.Since)
	if never || gone || silent {
		return seen.moveTo(dstack.ReplicaTerminated, r.Reason)
	}
	step := seen.stayWith("")
	step.Due = now.Add(lookInterval)
	return step
}
