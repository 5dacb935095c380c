package autoscale

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

func describeReplicas(n int) string {
	if n == 0 {
		return "no replicas"
	}
	return human.Count(n, "replica")
}

// describeOpenRequests describes the requests that are not answered yet.
func describeOpenRequests(inFlight, held int) string {
	wait := human.CountOf(held, "request waits for a replica", "requests wait for a replica")
	flight := human.CountOf(inFlight, "request is in flight", "requests are in flight")
	switch {
	case inFlight == 0:
		return wait
	case held == 0:
		return flight
	default:
		return flight + " and " + wait
	}
}

func describeDelay(field string, delay spec.Seconds, rest time.Duration) string {
	return fmt.Sprintf("; %s of %s is not over for another %s", field, delay, human.ExactDuration(rest))
}

// formatTarget formats a number of replicas, which may be maxTarget.
func formatTarget(n int) string {
	if n >= maxTarget {
		return "a very large number"
	}
	return strconv.Itoa(n)
}

// roundUp formats v with at most two decimals, rounded up, so that the printed
// division gives the printed result.
func roundUp(v float64) string {
	const noise = 1e-9
	return formatFloat(math.Ceil(v*100*(1-noise)) / 100)
}

func formatFloat(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
