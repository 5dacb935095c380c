package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// decideCrash records an attempt that ended by itself and decides on the next.
func decideCrash(seen ReplicaFacts, now time.Time) ReplicaStep {
	rep := seen.Report
	if rep.State == dstack.AttemptExited && rep.Disrupted {
		return seen.leaveForOtherPlace(now)
	}
	if i := seen.Instance; rep.State == dstack.AttemptRefused && rep.OtherMachine && i != nil && isRemote(*i) {
		return seen.leaveMachine(now)
	}
	return decideRetry(seen, now, DescribeExit(seen.Replica, *rep), rep.State, rep.Permanent)
}

// leaveMachine makes a replica wait for a place on another machine, because its own could
// not start it: nothing of it runs there. Without another machine it waits like any replica
// without a place.
func (seen ReplicaFacts) leaveMachine(now time.Time) ReplicaStep {
	why := DescribeExit(seen.Replica, *seen.Report)
	step := seen.moveTo(dstack.ReplicaWaiting, why)
	step.EndedAttempt = endAttempt(seen, now, why, seen.Report.State)
	step.EndedAttempt.NoNode = seen.Instance.Offer.AnyNode
	step.LeftOut = leaveOut(*seen.Instance)
	step.Due = now
	return step
}

// DescribeExit returns how an attempt ended, for its user.
func DescribeExit(r dstack.Replica, rep dstack.Report) dstack.Reason {
	switch rep.State {
	case dstack.AttemptRefused:
		return dstack.Reason(rep.Error)
	case dstack.AttemptAbsent:
		return dstack.Reason(fmt.Sprintf("replica %d was removed from outside", r.Num))
	case dstack.AttemptPulling, dstack.AttemptStarting, dstack.AttemptRunning, dstack.AttemptExited:
	}
	if rep.Error != "" {
		return dstack.Reason(rep.Error)
	}
	if rep.OOM {
		return dstack.Reason(fmt.Sprintf("replica %d was killed for using too much memory", r.Num))
	}
	after := ""
	if !rep.StartedAt.IsZero() && rep.EndedAt.After(rep.StartedAt) {
		after = " after " + human.RoundDuration(rep.EndedAt.Sub(rep.StartedAt))
	}
	return dstack.Reason(fmt.Sprintf("replica %d exited with code %d%s", r.Num, rep.ExitCode, after))
}

// decideRetry restarts a replica after a back-off, or fails it. A replica whose
// template has served never fails; another fails after three attempts, after
// its run's retry window, or at once when another attempt cannot help.
func decideRetry(seen ReplicaFacts, now time.Time, why dstack.Reason, how dstack.AttemptState, permanent bool) ReplicaStep {
	r := seen.Replica
	crashes, first := r.Crashes, r.FirstCrashAt
	if isServing(r) && !r.ReadyAt.IsZero() && now.Sub(r.ReadyAt) >= stableAfter {
		crashes = 0
	}
	if crashes == 0 {
		first = now
	}
	crashes++
	step := seen.moveTo(dstack.ReplicaRestarting, why)
	step.Crashes, step.FirstCrashAt = crashes, first
	step.EndedAttempt = endAttempt(seen, now, why, how)
	events, window := retryRule(seen.Run)
	switch {
	case seen.hasServedTemplate():
	case permanent:
		step.To = dstack.ReplicaFailed
	case events[spec.EventError] && !seen.canRollBack():
		if now.Sub(first) >= window {
			step.To, step.Reason = dstack.ReplicaFailed, why+dstack.Reason(fmt.Sprintf("; tried for %s", human.RoundDuration(window)))
		}
	case crashes >= maxFirstAttempts:
		times := ", %d times in a row"
		if strings.Contains(string(why), "; ") { // the last part of the reason is advice
			times = "; this happened %d times in a row"
		}
		step.To, step.Reason = dstack.ReplicaFailed, why+dstack.Reason(fmt.Sprintf(times, crashes))
	}
	if step.To == dstack.ReplicaRestarting {
		step.RetryAt = now.Add(backoffAfter(crashes))
		step.Due = step.RetryAt
	}
	return step
}

// endAttempt returns the record of the present attempt, which ends now.
func endAttempt(seen ReplicaFacts, now time.Time, why dstack.Reason, how dstack.AttemptState) *dstack.Attempt {
	r := seen.Replica
	a := &dstack.Attempt{ID: r.Attempt, Num: r.AttemptNum, StartedAt: r.AttemptAt, EndedAt: now, Reason: why, EndState: how}
	if rep := seen.Report; rep != nil {
		a.ExitCode, a.LastOutput = rep.ExitCode, rep.LastOutput
	}
	return a
}

func backoffAfter(crashes int) time.Duration {
	return min(firstBackoff<<min(crashes-1, 10), maxBackoff)
}
