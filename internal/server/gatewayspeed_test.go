package server

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// BenchmarkGatewayProcess_RouteChange measures the time from the commit of a change of one of 1000 routes until a gateway
// process on the same machine has it.
func BenchmarkGatewayProcess_RouteChange(b *testing.B) {
	count := 1000
	if n, err := strconv.Atoi(os.Getenv("SERVICES")); err == nil {
		count = n
	}
	h, _ := newLinkServer(b)
	process := h.startProcess()
	var last dstack.Replica
	for i := range count {
		run := h.makeReady(fmt.Sprintf("web-%d", i), fmt.Sprintf("127.0.0.1:%d", 10000+i))
		last = h.findReplica(run.ID)
	}
	table := process.waitTable(b, "all routes", func(table route.Table) bool {
		return len(table.Routes) == count && len(routeNamed(table, fmt.Sprintf("web-%d", count-1)).Ready) == 1
	})
	var times []time.Duration
	to := dstack.ReplicaStarting
	b.ResetTimer()
	for range b.N {
		h.stepReplica(last.ID, func(dstack.Replica) lifecycle.ReplicaStep { return lifecycle.ReplicaStep{To: to} })
		begin := time.Now()
		next, err := process.link.Table(b.Context(), table.Version)
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		if table = next; to == dstack.ReplicaStarting {
			to = dstack.ReplicaReady
		} else {
			to = dstack.ReplicaStarting
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "µs-p99")
}
