package autoscale

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"dstack/internal/human"
	"dstack/internal/spec"
)

func replicas(n int) string {
	if n == 0 {
		return "no replicas"
	}
	return human.Count(n, "replica")
}

func wanted(n int) string {
	if n == 0 {
		return "none was wanted"
	}
	return human.CountOf(n, "was wanted", "were wanted")
}

// unanswered tells of the requests that are not answered yet.
func unanswered(inFlight, held int) string {
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

func notOver(field string, delay spec.Seconds, rest time.Duration) string {
	return fmt.Sprintf("; %s of %s is not over for another %s", field, delay, human.ExactDuration(rest))
}

// many is a number of replicas, which may be beyond all bounds.
func many(n int) string {
	if n >= boundless {
		return "very many"
	}
	return strconv.Itoa(n)
}

// number has two decimals at most and is rounded up, so that the sum that is
// shown comes out as shown.
func number(v float64) string {
	const noise = 1e-9
	return exact(math.Ceil(v*100*(1-noise)) / 100)
}

func exact(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
