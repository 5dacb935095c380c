package lifecycle

import (
	"cmp"
	"fmt"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// checkHealth reports whether a running attempt is healthy, and if not, why.
func (seen ReplicaFacts) checkHealth() (ok bool, why dstack.Reason) {
	rep := seen.Report
	switch {
	case !rep.Ready:
		why := seen.explainClosedPort()
		return false, cmp.Or(why, dstack.Reason(fmt.Sprintf("port %d does not accept connections", seen.port())))
	case len(job.PlanProbes(seen.Replica, seen.Run.Spec.Configuration)) == 0:
		return true, ""
	case rep.Probes == nil && seen.hasModelCheck():
		return false, "its server was not asked for its model yet"
	case rep.Probes == nil:
		return false, "its probes were not answered yet"
	default:
		return rep.Probes.Ready, dstack.Reason(rep.Probes.Message)
	}
}

// hasModelCheck reports whether the server asks the replica for its model, because
// the configuration has no probes.
func (seen ReplicaFacts) hasModelCheck() bool {
	_, ok := job.ModelCheckOf(seen.Run.Spec.Configuration)
	return ok
}

// replicaUnhealthy waits for a replica that runs and does not answer. It restarts
// the replica when its port stays closed or its model absent for StartTimeout, or
// when its probes have failed often enough and mayRestart allows it.
func replicaUnhealthy(seen ReplicaFacts, now time.Time) ReplicaStep {
	if step, ended := seen.checkEnded(now); ended {
		return step
	}
	rep := seen.Report
	if rep == nil || rep.State != dstack.AttemptRunning {
		return seen.stayWith("")
	}
	healthy, why := seen.checkHealth()
	switch {
	case healthy:
		return seen.moveTo(dstack.ReplicaReady, seen.warnOfOpenListeners())
	case (!rep.Ready || seen.hasModelCheck()) && seen.hasLasted(seen.Limits.StartTimeout, now):
		return decideRetry(seen, now, dstack.Reason(fmt.Sprintf("%s for %s", why, human.RoundDuration(seen.Limits.StartTimeout))), dstack.AttemptRunning, false)
	case rep.Ready && rep.Probes != nil && rep.Probes.ConsecutiveFailures >= dstack.ProbeFailureThreshold && seen.mayRestart(now):
		return decideRetry(seen, now, dstack.Reason(fmt.Sprintf("%s, %d times in a row", why, dstack.ProbeFailureThreshold)), dstack.AttemptRunning, false)
	}
	step := seen.stayWith(why)
	step.Due = now.Add(lookInterval)
	return step
}

// mayRestart reports whether a replica that fails its probes may be restarted:
// other replicas are ready, or this has gone on for allUnhealthyGrace. When all
// replicas fail a probe, the probe or the load is the likely cause. Only one
// replica of a run is restarted at a time, the lowest number first.
func (seen ReplicaFacts) mayRestart(now time.Time) bool {
	patience := allUnhealthyGrace
	for _, r := range seen.Siblings {
		switch r.Status {
		case dstack.ReplicaReady:
			patience = 0
		case dstack.ReplicaStarting, dstack.ReplicaRestarting:
			return false
		case dstack.ReplicaUnhealthy:
			if r.Num < seen.Replica.Num || r.Num == seen.Replica.Num && r.ID < seen.Replica.ID {
				return false
			}
		case dstack.ReplicaWaiting, dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		}
	}
	return seen.hasLasted(patience, now)
}

// hasLasted reports whether the replica has had its status for a time, and its engine has answered at the end of that or
// later. A report says nothing of the time after its engine's last answer: a replica may have become ready since.
func (seen ReplicaFacts) hasLasted(long time.Duration, now time.Time) bool {
	end := seen.since().Add(long)
	return !now.Before(end) && seen.isHeardSince(end)
}

// isHeardSince reports whether the engine of the replica's instance has answered at a time or later.
func (seen ReplicaFacts) isHeardSince(at time.Time) bool {
	return seen.Instance != nil && !seen.Instance.LastResponseAt.Before(at)
}
