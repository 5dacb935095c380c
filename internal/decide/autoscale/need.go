package autoscale

import (
	"fmt"
	"math"
	"strings"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// need is how many replicas a load asks for, within the range, and how that
// comes about.
type need struct {
	replicas int
	why      string
}

// usualWindow is what a load is about where neither its gateway nor the
// configuration says.
const usualWindow = time.Minute

func (f Facts) window() time.Duration {
	switch {
	case f.Load.Window > 0:
		return f.Load.Window
	case f.Scaling.Window != nil && *f.Scaling.Window > 0:
		return time.Duration(*f.Scaling.Window) * time.Second
	default:
		return usualWindow
	}
}

// asked is what the load asks for. Of a load that is not known: what there is.
func (f Facts) asked() need {
	if f.Scaling == nil || !f.Load.Known {
		return need{replicas: f.clamp(f.DesiredReplicas)}
	}
	amount, what := f.measured()
	whole := f.enough(amount)
	if number(amount) == "1" {
		what = strings.Replace(what, "requests", "request", 1)
	}
	n := need{f.clamp(whole), fmt.Sprintf("%s %s over the last %s, target %s a replica: ceil(%s / %s) = %s",
		number(amount), what, human.ExactDuration(f.window()), exact(f.Scaling.Target), number(amount), exact(f.Scaling.Target), many(whole))}
	switch {
	case whole > n.replicas:
		n.why += fmt.Sprintf(", and %d at most", n.replicas)
	case whole < n.replicas:
		n.why += fmt.Sprintf(", and %d at least", n.replicas)
	}
	return f.present(n)
}

// measured is the metric, averaged over the window.
func (f Facts) measured() (amount float64, what string) {
	if f.Scaling.Metric == spec.MetricConcurrency {
		return f.Load.Concurrency, "requests at once"
	}
	return float64(f.Load.Requests) / f.window().Seconds(), "requests a second"
}

// present adds what an average does not show: the requests of this moment.
// Those that wait wake a service that sleeps, and no replica is taken away
// that they need.
func (f Facts) present(n need) need {
	now := f.Load.Held + f.Load.InFlight
	least := min(now, 1)
	if f.Scaling.Metric == spec.MetricConcurrency {
		busy := min(f.enough(float64(now)), f.DesiredReplicas) // only an average adds replicas,
		if f.DesiredReplicas == 0 {                            // but where there are none
			busy = f.enough(float64(f.Load.Held))
		}
		least = max(least, busy)
	}
	if least = f.clamp(least); now > 0 && least > n.replicas {
		return need{least, fmt.Sprintf("%s; yet %s: %d at least", n.why, unanswered(f.Load.InFlight, f.Load.Held), least)}
	}
	return n
}

// boundless stands for more replicas than any range allows.
const boundless = 1 << 30

// enough is how many replicas an amount takes: the amount by the target,
// rounded up. What is above a whole number only because of how machines count
// is that number.
func (f Facts) enough(amount float64) int {
	const noise = 1e-9
	if amount <= 0 {
		return 0
	}
	n := math.Ceil(amount / f.Scaling.Target * (1 - noise))
	if !(f.Scaling.Target > 0) || !(n < boundless) {
		return boundless
	}
	return int(n)
}
