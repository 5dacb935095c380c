package autoscale

import (
	"fmt"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// Decide returns the desired number of replicas at the time now, with the
// reason. The number is always within the range of the configuration, and is
// not zero while requests are waiting or in flight, unless the range is.
//
// It rises once scale_up_delay has passed since the last change; from zero it
// rises at once. It falls once scale_down_delay has passed since the last
// change and since the newest replica became ready, but not while a replica is
// starting.
func Decide(f Facts, now time.Time) Decision {
	goal := f.targetFromLoad()
	d := Decision{DesiredReplicas: f.DesiredReplicas, Target: goal.replicas}
	within := f.clamp(f.DesiredReplicas)
	switch {
	case f.Scaling == nil || f.Replicas.Min == f.Replicas.Max:
		d.DesiredReplicas, d.Target = f.Replicas.Min, f.Replicas.Min
		return d.withReason(RuleFixed, "the configuration asks for "+describeReplicas(f.Replicas.Min))
	case within != f.DesiredReplicas:
		d.DesiredReplicas = within
		return d.withReason(RuleRange, fmt.Sprintf("the configuration allows %s replicas, not %d", f.Replicas,
			f.DesiredReplicas))
	case !f.Load.Known:
		return d.withReason(RuleNoLoad, "no gateway reported its load recently, so nothing changes: "+describeReplicas(f.DesiredReplicas))
	case goal.replicas == f.DesiredReplicas:
		return d.withReason(RuleSteady, goal.reason+"; the current number")
	case f.DesiredReplicas == 0 && f.Others == 0:
		d.DesiredReplicas = goal.replicas
		why := goal.reason
		if f.Load.Held > 0 && !goal.hasOpenRequests {
			why += "; " + describeOpenRequests(0, f.Load.Held)
		}
		return d.withReason(RuleWake, why+"; scaling up from zero has no delay")
	case goal.replicas > f.DesiredReplicas:
		return f.scaleUp(d, goal, now)
	default:
		return f.scaleDown(d, goal, now)
	}
}

// scaleUp raises the number, unless the last change is too recent.
func (f Facts) scaleUp(d Decision, goal target, now time.Time) Decision {
	delay := f.Scaling.ScaleUpDelay
	if rest := remainingDelay(delay, f.ScaledAt, now); rest > 0 {
		d.NextAt = now.Add(rest)
		return d.withReason(RuleUpDelay, goal.reason+describeDelay("scale_up_delay", delay, rest))
	}
	d.DesiredReplicas = goal.replicas
	return d.withReason(RuleUp, fmt.Sprintf("%s; up from %d", goal.reason, f.DesiredReplicas))
}

// scaleDown lowers the number, unless replicas are starting, the load was not
// observed for long enough, or the last change is too recent.
func (f Facts) scaleDown(d Decision, goal target, now time.Time) Decision {
	delay := f.Scaling.ScaleDownDelay
	rest := max(remainingDelay(delay, f.ScaledAt, now), remainingDelay(delay, f.ReadyAt, now))
	window := f.window()
	switch {
	case f.Starting > 0:
		return d.withReason(RuleStarting, fmt.Sprintf("%s; no scale-down while %s", goal.reason,
			human.CountOf(f.Starting, "replica starts", "replicas start")))
	case f.Load.Watched < window:
		d.NextAt = now.Add(window - f.Load.Watched)
		return d.withReason(RuleWatching, fmt.Sprintf("%s; no scale-down before the gateway has observed the load "+
			"for %s, so far it has for %s",
			goal.reason, human.ExactDuration(window), human.ExactDuration(f.Load.Watched)))
	case rest > 0:
		d.NextAt = now.Add(rest)
		return d.withReason(RuleDownDelay, goal.reason+describeDelay("scale_down_delay", delay, rest))
	}
	d.DesiredReplicas = goal.replicas
	return d.withReason(RuleDown, fmt.Sprintf("%s; down from %d", goal.reason, f.DesiredReplicas))
}

// remainingDelay returns how much of a delay that began at since is left. If
// since is in the future by less than the delay, clocks differ a little, and
// the delay begins now. If it is further in the future, the clock was set back
// in the meantime, and the delay counts as over.
func remainingDelay(delay spec.Seconds, since, now time.Time) time.Duration {
	length := time.Duration(delay) * time.Second
	switch elapsed := now.Sub(since); {
	case elapsed >= length, elapsed <= -length:
		return 0
	case elapsed < 0:
		return length
	default:
		return length - elapsed
	}
}

// clamp limits n to the range of the configuration.
func (f Facts) clamp(n int) int { return min(max(n, f.Replicas.Min), f.Replicas.Max) }

// withReason returns d with its rule and reason.
func (d Decision) withReason(rule Rule, why string) Decision {
	d.Rule, d.Reason = rule, why
	return d
}
