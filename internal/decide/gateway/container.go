package gateway

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// act decides the action for a placement, and its phase.
func (d *placementDecision) act(step *PlacementStep) {
	silence, isSilent := d.facts.Unanswered[step.ID]
	containers := d.facts.Containers[step.ID]
	switch {
	case d.findHost(step.Host) == nil:
		step.IsGone = true // nothing can reach its host any more
	case isSilent && step.Phase == dstack.GatewayLeaving && d.findHost(step.Host).IsLeaving && d.isLost(*step):
		step.IsGone = true // its host leaves, too, and would never go
	case isSilent:
		if step.Phase != dstack.GatewayLeaving && !d.isServing(*step) {
			step.Reason, step.IsProblem = dstack.Reason("the host does not answer: "+silence.Error()), true
		}
	case step.Phase == dstack.GatewayLeaving && step.Since.Equal(d.now): // the intent is saved first
	case step.Phase == dstack.GatewayLeaving:
		d.clearHost(step, containers)
	default:
		d.keepRunning(step, containers)
	}
}

// clearHost removes what a leaving placement has on its host.
func (d *placementDecision) clearHost(step *PlacementStep, containers []dstack.GatewayContainer) {
	if len(containers) == 0 {
		step.Action, step.IsGone = DeleteState, true
		return
	}
	step.Action, step.Target = RemoveContainer, containers[0].Program
}

// keepRunning makes the container of the placement's program run. The container of an earlier program goes on until the new
// one has taken over.
func (d *placementDecision) keepRunning(step *PlacementStep, containers []dstack.GatewayContainer) {
	var current, earlier *dstack.GatewayContainer
	for i, c := range containers {
		if c.Program == step.Program.Digest {
			current = &containers[i]
		} else {
			earlier = &containers[i]
		}
	}
	if d.mayReplaceProgram(*step) {
		step.Program = d.facts.Program
		step.Program.OwnerSeenAt = d.now
		step.Failures, step.NextAt = 0, time.Time{}
		return // the intent is saved first
	}
	switch {
	case current == nil:
		d.start(step, earlier)
	case current.State == dstack.GatewayContainerFailed || current.State == dstack.GatewayContainerEnded:
		d.startAgain(step, current, earlier)
	case current.State == dstack.GatewayContainerRunning && d.isServing(*step):
		step.setServing(d.now)
		d.endEarlier(step, *current, earlier)
	default:
		d.describeStart(step, current, earlier)
	}
}

// endEarlier removes the container of an earlier program once it has ended: its process ends by itself after its successor
// took its sockets over and its last request ended. One that goes on is stopped in the end.
func (d *placementDecision) endEarlier(step *PlacementStep, current dstack.GatewayContainer, earlier *dstack.GatewayContainer) {
	if earlier == nil {
		return
	}
	limit := takeOverLimit
	if d.findProcess(*step).Version == step.Program.Version {
		limit = drainLimit
	}
	isOver := earlier.State == dstack.GatewayContainerEnded || earlier.State == dstack.GatewayContainerFailed
	if isOver || d.now.Sub(current.StartedAt) >= limit {
		step.Action, step.Target = RemoveContainer, earlier.Program
	}
}

// mayReplaceProgram reports whether this server's program replaces that of a placement.
func (d *placementDecision) mayReplaceProgram(step PlacementStep) bool {
	own, present := d.facts.Program, step.Program
	if own.Digest == "" || own.Digest == present.Digest {
		return false
	}
	return present.Digest == "" || present.Owner == own.Owner || d.now.Sub(present.OwnerSeenAt) >= ownerGoneAfter
}

// start starts the container, unless another server has its program.
func (d *placementDecision) start(step *PlacementStep, earlier *dstack.GatewayContainer) {
	switch {
	case d.facts.Program.Digest != step.Program.Digest:
		step.setMissing(earlier, dstack.Reason("waits for the server "+step.Program.Owner+", which has its program"), d.now)
		step.IsProblem = true
	case d.now.Before(step.NextAt):
	default:
		step.Action = StartContainer
		step.setMissing(earlier, "its program is copied to the host", d.now)
	}
}

// startAgain starts a container that ended, after a pause that grows.
func (d *placementDecision) startAgain(step *PlacementStep, current, earlier *dstack.GatewayContainer) {
	if step.NextAt.IsZero() || !d.now.Before(step.NextAt) {
		if !step.NextAt.IsZero() {
			step.Action = StartContainer
		}
		step.Failures++
		step.NextAt = d.now.Add(startBackoff(step.Failures))
	}
	why := current.Message
	if why == "" {
		why = "its process ended"
	}
	if earlier != nil {
		why = "its new version does not start, and the one before goes on: " + why
	}
	step.setMissing(earlier, dstack.Reason(why), d.now)
	step.IsProblem = true
}

// describeStart says what a container waits for that was started and does not serve yet.
func (d *placementDecision) describeStart(step *PlacementStep, current, earlier *dstack.GatewayContainer) {
	why := dstack.Reason(current.Message)
	if current.State == dstack.GatewayContainerRunning {
		why = "its process is joining"
		if runs := d.now.Sub(current.StartedAt); runs >= silentProcessAfter {
			why = dstack.Reason(fmt.Sprintf("its process has not reached a server for %s: ", human.RoundDuration(runs))) + d.explainUnreached(*step)
			step.IsProblem = true
		}
	}
	step.setMissing(earlier, why, d.now)
}

// explainUnreached returns why a process does not reach the server, or where to look.
func (d *placementDecision) explainUnreached(step PlacementStep) dstack.Reason {
	if why := d.facts.Unreached[step.Host]; why != "" {
		return dstack.Reason(why)
	}
	return "see `docker logs` on the host"
}

// setServing sets the phase of a placement whose process reports.
func (s *PlacementStep) setServing(now time.Time) {
	s.setPhase(dstack.GatewayServing, now)
	s.Reason, s.Failures, s.NextAt = "", 0, time.Time{}
}

// setMissing sets the phase and the reason of a placement whose container of the right program does not serve.
func (s *PlacementStep) setMissing(earlier *dstack.GatewayContainer, why dstack.Reason, now time.Time) {
	if earlier == nil {
		s.setPhase(dstack.GatewayStarting, now)
	}
	s.Reason = why
}

func (s *PlacementStep) setPhase(phase dstack.GatewayPhase, now time.Time) {
	if s.Phase != phase {
		s.Phase, s.Since = phase, now
	}
}

// startBackoff is the pause after the nth failure in a row.
func startBackoff(n int) time.Duration {
	return min(minStartBackoff<<min(n-1, 10), maxStartBackoff)
}
