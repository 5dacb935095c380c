package autoscale

import (
	"time"

	"dstack/internal/dstack"
)

// ReportFreshFor is how long a gateway's report counts.
const ReportFreshFor = 10 * time.Second

// GatewayReport is the part of a gateway's last report that concerns no run.
type GatewayReport struct {
	Gateway       string        // unique name of the gateway
	DrainSequence int64         // the drain sequence of its route table; 0: unknown
	Watched       time.Duration // how long the gateway has been counting
	At            time.Time     // when the report arrived
}

// isRecent reports whether a gateway's report counts. A gateway without a recent
// report may still forward requests, by an old route table.
func (g GatewayReport) isRecent(now time.Time) bool {
	return now.Sub(g.At).Abs() < ReportFreshFor
}

// LoadFacts is what the load of one run is computed from.
type LoadFacts struct {
	Gateways []GatewayReport
	Counts   map[string]dstack.RunLoad // by gateway; a gateway without an entry has had no request for the run
	// Draining maps each draining replica of the run to its drain sequence number;
	// 0: it has none yet.
	Draining map[dstack.ReplicaID]int64
	Window   time.Duration // over which the run's load is averaged
}

// SumReports adds the counts of one run from all gateways with a recent report.
// A draining replica is drained when all gateways have a recent report and a
// route table without it, and none has a request in flight to it.
func SumReports(f LoadFacts, now time.Time) dstack.Load {
	load := dstack.Load{Window: f.Window, Watched: f.Window, Replicas: map[dstack.ReplicaID]int{}, Drained: map[dstack.ReplicaID]bool{}}
	allRecent := true
	var metrics []dstack.RunMetrics
	for _, g := range f.Gateways {
		counts, hasCounts := f.Counts[g.Gateway]
		for id, n := range counts.Replicas {
			load.Replicas[id] += n
		}
		if !g.isRecent(now) {
			allRecent = false
			continue
		}
		load.Known = true
		if !hasCounts {
			load.Watched = min(load.Watched, g.Watched)
			continue
		}
		if counts.Window > 0 {
			load.Window = min(load.Window, counts.Window)
		}
		load.Watched = min(load.Watched, counts.Watched)
		load.Requests += counts.Requests
		load.Concurrency += counts.Concurrency
		load.InFlight += counts.InFlight
		load.Held += counts.Held
		metrics = append(metrics, counts.Metrics)
	}
	load.Metrics = dstack.SumMetrics(metrics)
	load.Watched = min(load.Watched, load.Window)
	if load.Known && allRecent {
		addDrained(&load, f)
	}
	return load
}

// addDrained adds the draining replicas that are in no gateway's route table and
// have no request in flight.
func addDrained(load *dstack.Load, f LoadFacts) {
	oldest := f.Gateways[0].DrainSequence
	for _, g := range f.Gateways {
		oldest = min(oldest, g.DrainSequence)
	}
	for id, sequence := range f.Draining {
		if sequence > 0 && sequence <= oldest && load.Replicas[id] == 0 {
			load.Drained[id] = true
		}
	}
}
