// Package host decides what the check of a host means: its status, what to tell the user,
// and when to check it again.
package host

import (
	"strings"
	"time"

	"dstack/internal/dstack"
)

// Result is what one check of a host found.
type Result struct {
	Found   dstack.HostFacts // what the successful steps found
	Failure *Failure         // the step that failed; nil: every step succeeded
}

// Failure is a step of a check that failed.
type Failure struct {
	Step    dstack.HostStep
	Kind    dstack.Kind // Unavailable: it may be over by itself; all others: the user has to mend something
	Message string      // why, for the user
	Hint    string      // what the user can do; may be empty
}

// readyInterval is how long a ready host is not checked. A lost connection is noticed
// earlier, by its keep-alive.
const readyInterval = time.Minute

// maxHardwareFailures is how many checks of the hardware of a ready host may fail in a row:
// the tools of a driver may hang for a while under load, and its replicas run on.
const maxHardwareFailures = 3

// Decide returns the check that follows from the last one of a host and a result.
func Decide(h dstack.Host, r Result, now time.Time) dstack.HostCheck {
	next := dstack.HostCheck{Status: dstack.HostReady, AppliedAt: h.AppliedAt, CheckedAt: now, Found: joinFacts(h.Check.Found, r)}
	if r.Failure == nil {
		next.NextAt = now.Add(readyInterval)
	} else {
		next.Failures = 1
		if h.Check.Failures > 0 && h.Check.Step == r.Failure.Step {
			next.Failures = h.Check.Failures + 1
		}
		next.NextAt = now.Add(retryDelay(*r.Failure, next.Failures))
		next.Status = failedStatus(h.Check, *r.Failure, next.Failures)
		next.Step = r.Failure.Step
		if next.Status != dstack.HostReady {
			next.Message, next.Hint = limitMessage(r.Failure.Message), limitMessage(r.Failure.Hint)
		}
	}
	next.Since = h.Check.Since
	if next.Status != h.Check.Status || next.Since.IsZero() {
		next.Since = now
	}
	return next
}

// failedStatus returns the status of a host whose check failed.
func failedStatus(before dstack.HostCheck, f Failure, failures int) dstack.HostStatus {
	wasReady := isAccepted(dstack.Host{Check: before})
	switch {
	case before.Status == dstack.HostReady && f.Step == dstack.HostStepHardware && failures < maxHardwareFailures:
		return dstack.HostReady
	case wasReady && f.Kind == dstack.Unavailable && (f.Step == dstack.HostStepConnect || f.Step == dstack.HostStepDocker):
		return dstack.HostUnreachable
	default:
		return dstack.HostFailed
	}
}

// retryDelay returns how long after the nth failure of a step in a row a host is checked
// again. SSH servers lock out addresses that fail to log in, for the right keys as well, so
// a login is not repeated soon.
func retryDelay(f Failure, n int) time.Duration {
	first, limit := 5*time.Second, time.Minute
	switch {
	case f.Step == dstack.HostStepLogin || f.Step == dstack.HostStepHostKey:
		first, limit = 30*time.Second, 10*time.Minute
	case f.Kind == dstack.Unavailable:
		first, limit = time.Second, 30*time.Second
	}
	delay := first
	for range n - 1 {
		delay *= 2
		if delay >= limit {
			return limit
		}
	}
	return delay
}

// joinFacts returns what is known of a host: what the check found, and for the steps that it
// did not reach, what earlier ones found.
func joinFacts(before dstack.HostFacts, r Result) dstack.HostFacts {
	r.Found = limitFacts(r.Found)
	if r.Failure == nil {
		return r.Found
	}
	known := before
	if r.Found.DockerVersion != "" || r.Failure.Step == dstack.HostStepDocker {
		known.DockerVersion, known.DockerAPI = r.Found.DockerVersion, r.Found.DockerAPI
		known.DockerAccess, known.EngineID = r.Found.DockerAccess, r.Found.EngineID
	}
	if r.Found.Hardware.CPUs > 0 {
		known.System, known.MachineID, known.DriverVersion = r.Found.System, r.Found.MachineID, r.Found.DriverVersion
		known.Hardware, known.Warnings = r.Found.Hardware, r.Found.Warnings
	}
	return known
}

// ExplainUnusable says in a few words why nothing can be placed on a host, for a plan; empty:
// something can, unless it drains.
func ExplainUnusable(h dstack.Host) string {
	c := h.Check
	switch c.Status {
	case dstack.HostReady:
		return ""
	case dstack.HostPending, "":
		return "it was not checked yet"
	case dstack.HostUnreachable:
		return "it does not answer: " + c.Message
	default:
		return "its check failed (" + string(c.Step) + "): " + strings.TrimSuffix(c.Message, ".") // help follows
	}
}
