package autoscale

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"dstack/internal/spec"
)

// count returns a number with a noun in singular or plural.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + more
}

func describeReplicas(n int) string {
	if n == 0 {
		return "no replicas"
	}
	return count(n, "replica", "replicas")
}

// describeOpenRequests describes the requests that are not answered yet.
func describeOpenRequests(inFlight, held int) string {
	wait := count(held, "request waits for a replica", "requests wait for a replica")
	flight := count(inFlight, "request is in flight", "requests are in flight")
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
	return fmt.Sprintf("; %s of %s is not over for another %s", field, delay, span(rest))
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

// span formats a duration, rounded up to seconds: 60s, 2m53s, 10m.
func span(d time.Duration) string {
	if whole := d.Truncate(time.Second); whole < d {
		d = whole + time.Second
	}
	if d <= 2*time.Minute {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
