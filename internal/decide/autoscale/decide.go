package autoscale

import (
	"fmt"
	"strings"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// Decide says how many replicas there should be at a moment, and why. What it
// wants is always within the range of the configuration, and never nothing
// while requests wait or are in flight. It grows by scale_up_delay, from none
// at once; it shrinks by scale_down_delay, and never while a replica starts.
// Both delays count from the last change, the second one also from the moment
// when the latest replica became ready.
func Decide(f Facts, now time.Time) Decision {
	asked := f.asked()
	d := Decision{DesiredReplicas: f.DesiredReplicas, Target: asked.replicas}
	within := f.clamp(f.DesiredReplicas)
	switch {
	case f.Scaling == nil || f.Replicas.Min == f.Replicas.Max:
		d.DesiredReplicas, d.Target = f.Replicas.Min, f.Replicas.Min
		return d.by(RuleFixed, "the configuration asks for "+replicas(f.Replicas.Min))
	case within != f.DesiredReplicas:
		d.DesiredReplicas = within
		return d.by(RuleRange, fmt.Sprintf("the configuration allows %s replicas, and %s", f.Replicas, wanted(f.DesiredReplicas)))
	case !f.Load.Known:
		return d.by(RuleNoLoad, "no gateway has told of its load lately, so nothing changes: "+replicas(f.DesiredReplicas))
	case asked.replicas == f.DesiredReplicas:
		return d.by(RuleSteady, asked.why+"; as many as there are")
	case f.DesiredReplicas == 0:
		d.DesiredReplicas = asked.replicas
		why := asked.why
		if wait := unanswered(0, f.Load.Held); f.Load.Held > 0 && !strings.Contains(why, wait) {
			why += "; " + wait
		}
		return d.by(RuleWake, why+"; from none there is no delay")
	case asked.replicas > f.DesiredReplicas:
		return f.up(d, asked, now)
	default:
		return f.down(d, asked, now)
	}
}

// up adds replicas, unless the last change is too recent.
func (f Facts) up(d Decision, asked need, now time.Time) Decision {
	delay := f.Scaling.ScaleUpDelay
	if rest := left(delay, f.ScaledAt, now); rest > 0 {
		d.NextAt = now.Add(rest)
		return d.by(RuleUpDelay, asked.why+notOver("scale_up_delay", delay, rest))
	}
	d.DesiredReplicas = asked.replicas
	return d.by(RuleUp, fmt.Sprintf("%s; up from %d", asked.why, f.DesiredReplicas))
}

// down takes replicas away, unless it would be rash.
func (f Facts) down(d Decision, asked need, now time.Time) Decision {
	delay := f.Scaling.ScaleDownDelay
	rest := max(left(delay, f.ScaledAt, now), left(delay, f.ReadyAt, now))
	window := f.window()
	switch {
	case f.Starting > 0:
		return d.by(RuleStarting, fmt.Sprintf("%s; none is taken away while %s", asked.why, human.CountOf(f.Starting, "replica starts", "replicas start")))
	case f.Load.Watched < window:
		d.NextAt = now.Add(window - f.Load.Watched)
		return d.by(RuleWatching, fmt.Sprintf("%s; the gateway has counted for %s of the %s only, which is too short to take any away",
			asked.why, human.ExactDuration(f.Load.Watched), human.ExactDuration(window)))
	case rest > 0:
		d.NextAt = now.Add(rest)
		return d.by(RuleDownDelay, asked.why+notOver("scale_down_delay", delay, rest))
	}
	d.DesiredReplicas = asked.replicas
	return d.by(RuleDown, fmt.Sprintf("%s; down from %d", asked.why, f.DesiredReplicas))
}

// left is how much of a delay is not over. A beginning that lies as far ahead
// as the delay is long was written before the clock was set back, and means
// nothing any more; one that is less far ahead is now.
func left(delay spec.Seconds, since, now time.Time) time.Duration {
	whole := time.Duration(delay) * time.Second
	switch gone := now.Sub(since); {
	case gone >= whole, gone <= -whole:
		return 0
	case gone < 0:
		return whole
	default:
		return whole - gone
	}
}

func (f Facts) clamp(n int) int { return min(max(n, f.Replicas.Min), f.Replicas.Max) }

// by completes a decision.
func (d Decision) by(rule Rule, why string) Decision {
	d.Rule, d.Reason = rule, why
	return d
}
