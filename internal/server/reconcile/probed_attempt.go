package reconcile

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

// target is a running attempt that has probes.
type target struct {
	Attempt         dstack.AttemptID
	dstack.Endpoint // without an address the attempt is not probed yet
	Probes          []job.Probe
	WasReady        bool // was ready when this server started to probe it; it stays ready until a probe fails
	WasServing      bool // was ready before, so its failures count even though it is not ready now
}

// probedAttempt is an attempt and the results of its probes. prober.mu guards
// everything but the target's constant fields.
type probedAttempt struct {
	target  // WasReady is set when all probes have passed
	cancel  context.CancelFunc
	results []probeResult // of each probe
	status  *dstack.ProbeStatus
}

// probeResult is the results of one probe so far.
type probeResult struct {
	passing     bool   // succeeded ReadyAfter times in a row, and has not failed since
	successes   int    // in a row
	failures    int    // in a row
	lastFailure string // reason of the latest failure
}

func newProbedAttempt(t target, cancel context.CancelFunc) *probedAttempt {
	t.Probes = slices.Clone(t.Probes)
	a := &probedAttempt{target: t, cancel: cancel, results: make([]probeResult, len(t.Probes))}
	if t.WasReady {
		a.status = &dstack.ProbeStatus{Ready: true}
		for i := range a.results {
			a.results[i].passing = true
		}
	}
	if t.WasServing {
		a.WasReady = true
		for i, probe := range a.Probes {
			a.results[i].passing = a.results[i].passing || probe.UntilReady // it is not sent any more
		}
	}
	return a
}

// hasTarget reports whether the probing can continue as it is for a target. An
// address that is not known at the moment counts as unchanged.
func (a *probedAttempt) hasTarget(t target) bool {
	return (t.Endpoint == a.Endpoint || t.Address == "") && reflect.DeepEqual(t.Probes, a.Probes)
}

// isDone reports whether a probe is no longer sent.
func (a *probedAttempt) isDone(i int) bool { return a.WasReady && a.Probes[i].UntilReady }

// addResult adds a result of one probe; nil is a success. It reports whether that
// changed Ready or ConsecutiveFailures.
func (a *probedAttempt) addResult(i int, failure *probeFailure) bool {
	result := &a.results[i]
	switch {
	case a.isDone(i):
		return false
	case failure == nil:
		result.successes, result.failures = result.successes+1, 0
		result.passing = result.passing || result.successes >= a.Probes[i].ReadyAfter
	case failure.isLocal && a.WasReady:
		return false // a shortage of this server takes no healthy replica out
	default:
		*result = probeResult{failures: result.failures + 1, lastFailure: failure.reason}
	}
	before := a.status
	a.status = a.summarize()
	return before == nil || before.Ready != a.status.Ready || before.ConsecutiveFailures != a.status.ConsecutiveFailures
}

// summarize returns the combined status of all probes. It describes the failing
// probe with the most failures.
func (a *probedAttempt) summarize() *dstack.ProbeStatus {
	worst := -1
	for i, result := range a.results {
		if !result.passing && (worst < 0 || result.failures > a.results[worst].failures) {
			worst = i
		}
	}
	if worst < 0 {
		a.WasReady = true
		return &dstack.ProbeStatus{Ready: true}
	}
	status, result, probe := &dstack.ProbeStatus{}, a.results[worst], a.Probes[worst]
	if a.WasReady {
		status.ConsecutiveFailures = min(result.failures, dstack.ProbeFailureThreshold)
	}
	switch {
	case result.failures > 0:
		status.Message = result.lastFailure
	case result.successes == 0:
		status.Message = makePrintable(probeTitle(probe.Probe)+" has not answered yet", maxReasonLength)
	default:
		progress := fmt.Sprintf(" has answered %d of %d times", result.successes, probe.ReadyAfter)
		status.Message = makePrintable(probeTitle(probe.Probe)+progress, maxReasonLength)
	}
	return status
}
