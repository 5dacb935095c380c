package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// replicaEnding is the step of a replica whose attempt is being ended by its cluster. It leaves at once, so that its run
// replaces it while it still runs: the end may take its whole grace period, or for ever if its node hangs. What is in flight goes
// on until the process ends. ok is false for any other replica, and for those that the server itself ends.
func replicaEnding(seen ReplicaFacts, now time.Time) (step ReplicaStep, ok bool) {
	rep := seen.Report
	if rep == nil || rep.Ending == "" || rep.State.IsOver() || isLost(seen.Instance) {
		return ReplicaStep{}, false
	}
	why := dstack.Reason(rep.Ending)
	switch seen.Replica.Status {
	case dstack.ReplicaReady, dstack.ReplicaUnhealthy:
		step = seen.moveTo(dstack.ReplicaDraining, why)
		step.DrainUntil = now.Add(seen.Run.Spec.Configuration.EffectiveDrainTimeout())
	case dstack.ReplicaStarting: // it was never sent a request
		step = seen.moveTo(dstack.ReplicaTerminating, why)
	case dstack.ReplicaWaiting, dstack.ReplicaRestarting, dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		return ReplicaStep{}, false
	}
	if i := seen.Instance; rep.Disrupted && isRemote(*i) && now.Sub(seen.Replica.AttemptAt) < stableAfter {
		step.LeftOut = leaveOut(*i)
	}
	step.Due = earliestDue(now, step.DrainUntil, now.Add(lookInterval))
	return step, true
}
