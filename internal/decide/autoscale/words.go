package autoscale

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"dstack/internal/spec"
)

// count is a number of things.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + more
}

func replicas(n int) string {
	if n == 0 {
		return "no replicas"
	}
	return count(n, "replica", "replicas")
}

func wanted(n int) string {
	if n == 0 {
		return "none was wanted"
	}
	return count(n, "was wanted", "were wanted")
}

// unanswered tells of the requests that are not answered yet.
func unanswered(inFlight, held int) string {
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

func notOver(field string, delay spec.Seconds, rest time.Duration) string {
	return fmt.Sprintf("; %s of %s is not over for another %s", field, delay, span(rest))
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

// span is a length of time as people say it: 60s, 2m53s, 10m.
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
