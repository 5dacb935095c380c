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
)

// Replica decides the next step of a replica.
func Replica(seen ReplicaFacts, now time.Time) (ReplicaStep, error) {
	switch seen.Replica.Status {
	case dstack.ReplicaWaiting:
		return replicaWaiting(seen, now), nil
	case dstack.ReplicaStarting:
		return replicaStarting(seen, now), nil
	case dstack.ReplicaReady:
		return replicaReady(seen, now), nil
	case dstack.ReplicaRestarting:
		return replicaRestarting(seen, now), nil
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
	return ReplicaStep{To: r.Status, Reason: cmp.Or(why, r.Reason), Crashes: r.Crashes, Crashed: r.CrashedAt, DueAt: r.DueAt}
}

// go moves to another status, keeping the count of crashes.
func (seen ReplicaFacts) move(to dstack.ReplicaStatus, why dstack.Reason) ReplicaStep {
	step := seen.stay("")
	step.To, step.Reason, step.DueAt = to, why, time.Time{}
	return step
}

// everReady says that the run's present revision has served: from then on its
// replicas are restarted for as long as it lives.
func (seen ReplicaFacts) everReady() bool { return !seen.Run.ReadyAt.IsZero() }

func replicaWaiting(seen ReplicaFacts, now time.Time) ReplicaStep {
	if len(seen.Places) > 0 {
		step := seen.move(dstack.ReplicaStarting, "")
		step.Place, step.Attempt = &seen.Places[0], true
		return step
	}
	why := noPlace(seen.Misfits)
	patience := seen.Limits.PlaceTimeout
	if events, window := retryRule(seen.Run); events[spec.EventNoCapacity] {
		patience = window
	}
	if !seen.everReady() && now.Sub(seen.Replica.Since) >= patience {
		return seen.move(dstack.ReplicaFailed, why)
	}
	step := seen.stay(why)
	step.Due = now.Add(placeAgain)
	return step
}

// noPlace says why no machine suits.
func noPlace(misfits []dstack.Misfit) dstack.Reason {
	if len(misfits) == 0 {
		return "no machine is configured for this project"
	}
	parts := make([]string, len(misfits))
	for i, m := range misfits {
		parts[i] = m.Offer.Type + ": " + m.Why
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
	switch rep.Outcome {
	case dstack.OutcomeExited, dstack.OutcomeRefused:
		return crashed(seen, now)
	case dstack.OutcomeRunning:
		if rep.Ready {
			return seen.move(dstack.ReplicaReady, "")
		}
		return replicaNotOpen(seen, now)
	case dstack.OutcomePulling, dstack.OutcomeStarting, dstack.OutcomeAbsent:
		step := seen.stay(dstack.Reason(rep.Progress))
		step.Due = now.Add(lookAgain)
		return step
	default:
		return seen.stay(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.Outcome)))
	}
}

// lost says that an instance will never run anything again.
func lost(i *dstack.Instance) bool {
	return i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted
}

// replicaNotOpen waits for the port of a running replica, up to StartTimeout
// since it began or was last ready, whichever is later.
func replicaNotOpen(seen ReplicaFacts, now time.Time) ReplicaStep {
	since := seen.Report.StartedAt
	if since.Before(seen.Replica.Since) {
		since = seen.Replica.Since
	}
	port := seen.Run.Spec.Configuration.Port.Container
	deadline := since.Add(seen.Limits.StartTimeout)
	if now.Before(deadline) {
		step := seen.stay(dstack.Reason(fmt.Sprintf("running; port %d does not accept connections yet", port)))
		step.Due = now.Add(min(deadline.Sub(now), lookAgain))
		return step
	}
	why := dstack.Reason(fmt.Sprintf("port %d did not open within %s", port, seen.Limits.StartTimeout))
	return again(seen, now, why, dstack.OutcomeRunning, true)
}

// replicaReady watches what serves. A port that stops accepting takes it out
// of rotation; only its own end restarts it.
func replicaReady(seen ReplicaFacts, now time.Time) ReplicaStep {
	rep := seen.Report
	if lost(seen.Instance) {
		return seen.move(dstack.ReplicaWaiting, "its machine is gone")
	}
	if rep == nil {
		return seen.stay("")
	}
	switch rep.Outcome {
	case dstack.OutcomeExited, dstack.OutcomeRefused, dstack.OutcomeAbsent:
		return crashed(seen, now)
	case dstack.OutcomeRunning:
		if !rep.Ready {
			step := seen.move(dstack.ReplicaStarting, "its port stopped accepting connections")
			step.Due = now.Add(lookAgain)
			return step
		}
		return seen.stay("")
	case dstack.OutcomePulling, dstack.OutcomeStarting:
		return seen.stay("")
	default:
		return seen.stay(dstack.Reason(fmt.Sprintf("its engine reports the unknown outcome %q", rep.Outcome)))
	}
}

// crashed remembers an attempt that ended by itself and decides on the next.
func crashed(seen ReplicaFacts, now time.Time) ReplicaStep {
	rep := seen.Report
	return again(seen, now, Ended(seen.Replica, *rep), rep.Outcome, rep.Permanent)
}

// Ended says how an attempt ended, in words for its user.
func Ended(r dstack.Replica, rep dstack.Report) dstack.Reason {
	switch rep.Outcome {
	case dstack.OutcomeRefused:
		return dstack.Reason(rep.Error)
	case dstack.OutcomeAbsent:
		return dstack.Reason(fmt.Sprintf("replica %d was removed from outside", r.Num))
	case dstack.OutcomePulling, dstack.OutcomeStarting, dstack.OutcomeRunning, dstack.OutcomeExited:
	}
	if rep.Error != "" {
		return dstack.Reason(rep.Error)
	}
	if rep.OOM {
		return dstack.Reason(fmt.Sprintf("replica %d was killed for using too much memory", r.Num))
	}
	after := ""
	if !rep.StartedAt.IsZero() && rep.EndedAt.After(rep.StartedAt) {
		after = " after " + brief(rep.EndedAt.Sub(rep.StartedAt))
	}
	return dstack.Reason(fmt.Sprintf("replica %d exited with code %d%s", r.Num, rep.ExitCode, after))
}

// brief prints a duration as people say it: 0.3s, 14s, 3m, 2h.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	default:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
}

// again restarts a replica after a back-off, or gives it up. A run that has
// been ready is never given up; one that has not is after three tries, after
// its retry window, or at once when trying again cannot help.
func again(seen ReplicaFacts, now time.Time, why dstack.Reason, how dstack.Outcome, permanent bool) ReplicaStep {
	r := seen.Replica
	crashes, first := r.Crashes, r.CrashedAt
	if r.Status == dstack.ReplicaReady && now.Sub(r.Since) >= stableAfter {
		crashes = 0
	}
	if crashes == 0 {
		first = now
	}
	crashes++
	step := seen.move(dstack.ReplicaRestarting, why)
	step.Crashes, step.Crashed = crashes, first
	step.Past = past(seen, now, why, how)
	events, window := retryRule(seen.Run)
	switch {
	case seen.everReady():
	case permanent:
		step.To = dstack.ReplicaFailed
	case events[spec.EventError]:
		if now.Sub(first) >= window {
			step.To, step.Reason = dstack.ReplicaFailed, why+dstack.Reason(fmt.Sprintf("; tried for %s", brief(window)))
		}
	case crashes >= triesAtFirst:
		step.To, step.Reason = dstack.ReplicaFailed, why+dstack.Reason(fmt.Sprintf(", %d times in a row", crashes))
	}
	if step.To == dstack.ReplicaRestarting {
		step.DueAt = now.Add(backoff(crashes))
		step.Due = step.DueAt
	}
	return step
}

// past is the attempt that ends now.
func past(seen ReplicaFacts, now time.Time, why dstack.Reason, how dstack.Outcome) *dstack.Attempt {
	r := seen.Replica
	a := &dstack.Attempt{ID: r.Attempt, Num: r.AttemptNum, From: r.AttemptAt, To: now, Reason: why, Ending: how}
	if rep := seen.Report; rep != nil {
		a.Exit, a.LastOut = rep.ExitCode, rep.LastOut
	}
	return a
}

func backoff(crashes int) time.Duration {
	return min(firstBackoff<<min(crashes-1, 10), mostBackoff)
}

// replicaRestarting waits out the back-off, and for the last attempt to be
// over: two attempts of one replica never run at once.
func replicaRestarting(seen ReplicaFacts, now time.Time) ReplicaStep {
	r := seen.Replica
	switch {
	case lost(seen.Instance):
		return seen.move(dstack.ReplicaWaiting, "its machine is gone")
	case now.Before(r.DueAt) && r.DueAt.Sub(now) <= mostBackoff: // else the clock was set back
		step := seen.stay("")
		step.Due = r.DueAt
		return step
	case seen.Report != nil && !seen.Report.Outcome.Over():
		step := seen.stay("")
		step.Due = now.Add(lookAgain)
		return step
	default:
		step := seen.move(dstack.ReplicaStarting, r.Reason)
		step.Attempt = true
		return step
	}
}

// replicaTerminating waits until no machine can still be running it: its
// engine was asked after the decision, and had nothing of it.
func replicaTerminating(seen ReplicaFacts, now time.Time) ReplicaStep {
	r, rep := seen.Replica, seen.Report
	never := r.Instance == "" || r.Attempt == ""
	gone := seen.Instance == nil || seen.Instance.Status == dstack.InstanceDeleted
	silent := rep != nil && rep.Outcome == dstack.OutcomeAbsent && !rep.At.Before(r.Since)
	if never || gone || silent {
		return seen.move(dstack.ReplicaTerminated, r.Reason)
	}
	step := seen.stay("")
	step.Due = now.Add(lookAgain)
	return step
}
