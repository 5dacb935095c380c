package autoscale

import (
	"fmt"
	"math"
	"strings"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// target is the number of replicas that the load requires, within the range of
// the configuration, and the calculation as text.
type target struct {
	replicas int
	reason   string
	// hasOpenRequests reports whether reason describes the requests in flight and
	// waiting, because they raised the number.
	hasOpenRequests bool
}

// window returns the time over which the load is averaged.
func (f Facts) window() time.Duration {
	if f.Load.Window > 0 {
		return f.Load.Window
	}
	return time.Duration(f.Scaling.EffectiveWindow()) * time.Second
}

// targetFromLoad calculates the target. Without a known load it is the current
// number.
func (f Facts) targetFromLoad() target {
	if f.Scaling == nil || !f.Load.Known {
		return target{replicas: f.clamp(f.DesiredReplicas)}
	}
	all, what := f.measureLoad()
	if roundUp(all) == "1" {
		what = strings.Replace(what, "requests", "request", 1)
	}
	amount, others := max(all-f.OthersTake, 0), ""
	if f.OthersTake > 0 {
		others = fmt.Sprintf(", other groups take %s", roundUp(f.OthersTake))
	}
	whole := f.replicasFor(amount)
	n := target{replicas: f.clamp(whole), reason: fmt.Sprintf("%s %s over the last %s%s, target %s a replica: ceil(%s / %s) = %s",
		roundUp(all), what, human.ExactDuration(f.window()), others, formatFloat(f.Scaling.Target), roundUp(amount), formatFloat(f.Scaling.Target), formatTarget(whole))}
	switch {
	case whole > n.replicas:
		n.reason += fmt.Sprintf(", but at most %d", n.replicas)
	case whole < n.replicas:
		n.reason += fmt.Sprintf(", but at least %d", n.replicas)
	}
	return f.applyCurrentRequests(n)
}

// measureLoad returns the metric, averaged over the window, and its name.
func (f Facts) measureLoad() (amount float64, what string) {
	if f.Scaling.Metric == spec.MetricConcurrency {
		return f.Load.Concurrency, "requests at once"
	}
	return float64(f.Load.Requests) / f.window().Seconds(), "requests a second"
}

// applyCurrentRequests raises the target to what the requests in flight and
// waiting need right now, which an average does not show: waiting requests
// scale a service up from zero, and no replica is removed that they need.
func (f Facts) applyCurrentRequests(n target) target {
	now := f.Load.Held + f.Load.InFlight
	lowest := min(now, 1)
	if f.Others > 0 {
		lowest = 0
	}
	if f.Scaling.Metric == spec.MetricConcurrency {
		busy := min(f.replicasFor(float64(now)-f.OthersTake), f.DesiredReplicas) // current requests only keep replicas;
		if f.DesiredReplicas == 0 && f.Others == 0 {                             // the average adds them, except from zero
			busy = f.replicasFor(float64(f.Load.Held))
		}
		lowest = max(lowest, busy)
	}
	if lowest = f.clamp(lowest); now > 0 && lowest > n.replicas {
		reason := fmt.Sprintf("%s; but %s: at least %d", n.reason, describeOpenRequests(f.Load.InFlight, f.Load.Held), lowest)
		return target{replicas: lowest, reason: reason, hasOpenRequests: true}
	}
	return n
}

// maxTarget represents any number above the largest possible range.
const maxTarget = 1 << 30

// replicasFor returns the number of replicas for an amount of load: the amount
// divided by the target of one replica, rounded up. It ignores floating-point
// noise, so that 0.3 / 0.1 gives 3.
func (f Facts) replicasFor(amount float64) int {
	const noise = 1e-9
	if amount <= 0 {
		return 0
	}
	n := math.Ceil(amount / f.Scaling.Target * (1 - noise))
	if !(f.Scaling.Target > 0) || !(n < maxTarget) {
		return maxTarget
	}
	return int(n)
}
