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
	triesAtFirst = 3                // attempts of a replica whose run was never ready and asks for no retry
	stableAfter  = time.Minute      // ready for so long, earlier crashes are forgotten
	firstBackoff = time.Second      // doubles with each crash
	mostBackoff  = time.Minute      //
	placeAgain   = 5 * time.Second  // between looks for a place
	lookAgain    = 10 * time.Second // in case that a wake was lost
	mostDrain    = time.Hour        // the language allows no longer drain_timeout
	allSick      = 2 * time.Minute  // before one of replicas that all fail their probes is restarted
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
		return seen.stay(""), nil
	default:
		return ReplicaStep{}, fmt.Errorf("replica %s has the unknown status %q", seen.Replica.ID, seen.Replica.Status)
	}
}

// stay keeps everything, with another reason if one is given.
func (seen ReplicaFacts) stay(why dstack.Reason) ReplicaStep {
	r := seen.Replica
	return ReplicaStep{To: r.Status, Reason: cmp.Or(why, r.Reason), Crashes: r.Crashes, FirstCrashAt: r.FirstCrashAt, RetryAt: r.RetryAt}
}

// go moves to another status, keeping the count of crashes.
func (seen ReplicaFacts) move(to dstack.ReplicaStatus, why dstack.Reason) ReplicaStep {
	step := seen.stay("")
	step.To, step.Reason, step.RetryAt = to, why, time.Time{}
	return step
}

// proven says that the replica's shape has served: from then on its replicas
// are restarted for as long as the run lives. Those of an older one are what
// a failed update falls back to.
func (seen ReplicaFacts) proven() bool {
	return !seen.Run.ReadyAt.IsZero() || seen.Replica.TemplateRevision != seen.Run.TemplateRevision
}

// updates says that an earlier revision serves, or can serve again, should
// this one fail. Then trying for long helps nobody.
func (seen ReplicaFacts) updates() bool { return !seen.proven() && seen.Run.StableRevision > 0 }

func replicaWaiting(seen ReplicaFacts, now time.Time) ReplicaStep {
	if len(seen.Placements) > 0 {
		step := seen.move(dstack.ReplicaStarting, "")
		step.Placement, step.NewAttempt = &seen.Placements[0], true
		return step
	}
	if seen.Blocked {
		step := seen.stay("waits for an older replica of the same service to leave: " + noPlace(seen.Rejections))
		step.Blocked, step.Due = true, now.Add(placeAgain)
		return step
	}
	why := noPlace(seen.Rejections)
	patience := seen.Limits.PlaceTimeout
	if events, window := retryRule(seen.Run); events[spec.EventNoCapacity] {
		patience = window
	}
	if !seen.proven() && now.Sub(seen.Replica.Since) >= patience {
		return seen.move(dstack.ReplicaFailed, why)
	}
	step := seen.stay(why)
	step.Due = now.Add(placeAgain)
	return step
}

// noPlace says why no machine suits.
func noPlace(misfits []dstack.Rejection) dstack.Reason {
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
	if lost(seen.Instance) {
		return seen.move(dstack.ReplicaWaiting, "its machine is gone")
	}
	if rep == nil {
		step := seen.stay("")
		step.Due = now.Add(lookAgain)
		return step
	}
	switch rep.State {
	case dstack.AttemptExited, dstack.AttemptRefused:
		return crashed(seen, now)
	case dstack.AttemptRunning:
		if healthy, _ := seen.health(); healthy {
			return seen.move(dstack.ReplicaReady, "")
		}
		return replicaNotOpen(seen, now)
	case dstack.AttemptPulling, dstack.AttemptStarting, dstack.AttemptAbsent:
		step := seen.stay(dstack.Reason(rep.Progress))
		step.Due = now.Add(lookAgain)
		return step
	default:
		return seen.stay(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.State)))
	}
}

// lost says that an instance will never run anything again.
func lost(i *dstack.Instance) bool {
	return i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted
}

// replicaNotOpen waits for a running replica to answer, up to StartTimeout
// since it began.
func replicaNotOpen(seen ReplicaFacts, now time.Time) ReplicaStep {
	since := seen.Report.StartedAt
	if since.Before(seen.Replica.Since) {
		since = seen.Replica.Since
	}
	_, why := seen.health()
	deadline := since.Add(seen.Limits.StartTimeout)
	if now.Before(deadline) {
		step := seen.stay("running; " + why + " yet")
		if seen.Report.Ready {
			step = seen.stay("running; " + why)
		}
		step.Due = now.Add(min(deadline.Sub(now), lookAgain))
		return step
	}
	if seen.Report.Ready {
		why = dstack.Reason(fmt.Sprintf("its probes did not succeed within %s: %s", seen.Limits.StartTimeout, why))
	} else {
		why = dstack.Reason(fmt.Sprintf("port %d did not open within %s", seen.Run.Spec.Configuration.Port.Container, seen.Limits.StartTimeout))
	}
	return again(seen, now, why, dstack.AttemptRunning, true)
}

// replicaReady watches what serves. One that does not answer gets no requests
// from then on; only its own end restarts it at once.
func replicaReady(seen ReplicaFacts, now time.Time) ReplicaStep {
	if step, ended := seen.runs(now); ended {
		return step
	}
	if seen.Report == nil || seen.Report.State != dstack.AttemptRunning {
		return seen.stay("")
	}
	if healthy, why := seen.health(); !healthy {
		step := seen.move(dstack.ReplicaUnhealthy, why)
		step.Due = now.Add(lookAgain)
		return step
	}
	return seen.stay("")
}

// runs tells what has ended from what may still run: the step for the former.
func (seen ReplicaFacts) runs(now time.Time) (step ReplicaStep, ended bool) {
	rep := seen.Report
	if lost(seen.Instance) {
		return seen.move(dstack.ReplicaWaiting, "its machine is gone"), true
	}
	if rep == nil {
		return ReplicaStep{}, false
	}
	switch rep.State {
	case dstack.AttemptExited, dstack.AttemptRefused, dstack.AttemptAbsent:
		return crashed(seen, now), true
	case dstack.AttemptRunning, dstack.AttemptPulling, dstack.AttemptStarting:
		return ReplicaStep{}, false
	default:
		return seen.stay(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.State))), true
	}
}

// replicaRestarting waits out the back-off, and for the last attempt to be
// over: two attempts of one replica never run at once.
func replicaRestarting(seen ReplicaFacts, now time.Time) ReplicaStep {
	r := seen.Replica
	switch {
	case lost(seen.Instance):
		return seen.move(dstack.ReplicaWaiting, "its machine is gone")
	case now.Before(r.RetryAt) && r.RetryAt.Sub(now) <= mostBackoff: // else the clock was set back
		step := seen.stay("")
		step.Due = r.RetryAt
		return step
	case seen.Report != nil && !seen.Report.State.IsOver():
		step := seen.stay("")
		step.Due = now.Add(lookAgain)
		return step
	default:
		step := seen.move(dstack.ReplicaStarting, r.Reason)
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
	case r.Attempt == "" || lost(seen.Instance) || rep != nil && rep.State.IsOver():
		return seen.move(dstack.ReplicaTerminating, r.Reason)
	case load.Drained[r.ID]:
		return seen.move(dstack.ReplicaTerminating, r.Reason)
	case !now.Before(r.DrainDeadline) || r.DrainDeadline.Sub(now) > mostDrain: // else the clock was set back
		why := r.Reason
		if n := load.Replicas[r.ID]; n > 0 {
			why += dstack.Reason(fmt.Sprintf("; %d requests in flight were not waited for any longer", n))
		}
		return seen.move(dstack.ReplicaTerminating, why)
	}
	step := seen.stay("")
	step.Due = now.Add(min(r.DrainDeadline.Sub(now), lookAgain))
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
		return seen.move(dstack.ReplicaTerminated, r.Reason)
	}
	step := seen.stay("")
	step.Due = now.Add(lookAgain)
	return step
}
