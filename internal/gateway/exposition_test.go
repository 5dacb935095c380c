package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// noPlane is a control plane that nobody asks.
type noPlane struct{}

func (noPlane) Table(ctx context.Context, _ uint64) (route.Table, error) {
	<-ctx.Done()
	return route.Table{}, ctx.Err()
}

func (noPlane) Report(context.Context, dstack.LoadReport) (dstack.LoadAnswer, error) {
	return dstack.LoadAnswer{}, nil
}

// newBusyGateway returns a gateway with services that have had requests of two classes of statuses each.
func newBusyGateway(services int) *Gateway {
	g := New(Options{Control: noPlane{}})
	var table route.Table
	for i := range services {
		name := fmt.Sprintf("service-%d", i)
		table.Routes = append(table.Routes, route.Route{Run: dstack.RunID(name), Project: "main", Name: name})
	}
	g.applyTable(table)
	for _, r := range table.Routes {
		counts := g.loads.countsOf(r.Run)
		for i := range 20 {
			counts.countResponse(200, time.Duration(i)*time.Millisecond, time.Duration(i)*100*time.Millisecond)
		}
		counts.countResponse(502, time.Second, time.Second)
		counts.countAnswer(401)
	}
	return g
}

func TestAppendMetrics_OfRequests(t *testing.T) {
	g := newBusyGateway(2)
	g.loads.countsOf("service-0").countRetry()
	text := string(g.AppendMetrics(nil))
	for _, want := range []string{
		`dstack_responses_total{code="200",project="main",run="service-0"} 20`,
		`dstack_responses_total{code="401",project="main",run="service-0"} 1`,
		`dstack_responses_total{code="502",project="main",run="service-1"} 1`,
		`dstack_requests_retried_total{project="main",run="service-0"} 1`,
		`dstack_requests_retried_total{project="main",run="service-1"} 0`,
		`dstack_request_first_byte_seconds_bucket{class="2xx",project="main",run="service-0",le="0.0025"} 3`,
		`dstack_request_first_byte_seconds_bucket{class="2xx",project="main",run="service-0",le="+Inf"} 20`,
		`dstack_request_first_byte_seconds_sum{class="2xx",project="main",run="service-0"} 0.19`,
		`dstack_request_seconds_sum{class="2xx",project="main",run="service-0"} 19`,
		`dstack_request_seconds_count{class="5xx",project="main",run="service-1"} 1`,
		"# TYPE dstack_request_seconds histogram",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no line %s", want)
		}
	}
	if strings.Contains(text, `class="4xx"`) {
		t.Error("an answer of the gateway itself has times")
	}
}

func TestAppendLabel(t *testing.T) {
	if got := string(appendLabel(appendLabel(nil, "a", "x\"y\\z\n"), "b", "\xff")); got != `a="x\"y\\z\n",b="`+"\uFFFD"+`"` {
		t.Error(got)
	}
}

// A request is counted without a lock, an allocation or a look-up by name.
func TestRunCounts_Cost(t *testing.T) {
	var counts runCounts
	counts.countResponse(200, time.Millisecond, time.Second)
	if n := testing.AllocsPerRun(100, func() { counts.countResponse(204, time.Millisecond, time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	counts.countResponse(0, 0, 0) // a response that was never begun has no status
	counts.countAnswer(1000)
}

func BenchmarkAppendMetrics(b *testing.B) {
	g := newBusyGateway(1000)
	var buffer []byte
	for b.Loop() {
		buffer = g.AppendMetrics(buffer[:0])
	}
	b.ReportMetric(float64(len(buffer)), "bytes")
}

func BenchmarkRunCounts(b *testing.B) {
	var counts runCounts
	for b.Loop() {
		counts.countResponse(200, 300*time.Microsecond, 400*time.Microsecond)
	}
}

// A scrape of a thousand services takes less than 20 ms; the best of several times, because tests share the machine.
func TestAppendMetrics_OfManyServices(t *testing.T) {
	g := newBusyGateway(1000)
	best := time.Hour
	var buffer []byte
	limit := 20 * time.Millisecond
	if RaceEnabled {
		limit *= 10 // the detector's own cost
	}
	for range 20 {
		began := time.Now()
		buffer = g.AppendMetrics(buffer[:0])
		if best = min(best, time.Since(began)); best < limit {
			return
		}
	}
	t.Errorf("a scrape of %d bytes takes %s", len(buffer), best)
}
