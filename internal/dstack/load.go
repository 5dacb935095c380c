package dstack

import (
	"cmp"
	"slices"
	"time"
)

// Load is the load of one run, summed over all gateways that serve it.
type Load struct {
	Known       bool              // false: no gateway reported recently, and all other fields are meaningless
	Window      time.Duration     // the period that Requests and Concurrency cover
	Watched     time.Duration     // how much of the window a gateway has observed
	Requests    int               // requests that arrived within the window, waiting ones included
	Concurrency float64           // requests in flight and waiting, averaged over the window
	InFlight    int               // requests in flight now
	Held        int               // requests waiting for a replica now
	Replicas    map[ReplicaID]int // requests in flight now for each replica; replicas without any are left out
	// Drained is the set of draining replicas that receive no more requests:
	// no gateway has them in its route table, and none has a request in flight
	// to them.
	Drained map[ReplicaID]bool
	Metrics RunMetrics
}

// LoadReport is what one gateway reports to the control plane. A run that is
// not in Runs has no request in flight, waiting or counted. Durations are
// nanoseconds in JSON; a reader ignores fields that it does not know.
type LoadReport struct {
	Gateway       string            `json:"gateway"`        // unique name of the gateway
	TableVersion  uint64            `json:"table_version"`  // version of the route table that the gateway uses
	DrainSequence int64             `json:"drain_sequence"` // the drain sequence of that table; 0: unknown
	Watched       time.Duration     `json:"watched"`        // how long the gateway has been counting
	Runs          map[RunID]RunLoad `json:"runs,omitempty"`
	// Demands is what the gateway's callers ask for of the limits that all gateways
	// count together.
	Demands map[LimitID]Demand `json:"demands,omitempty"`
	// Keys counts the requests with each key for callers since the gateway began.
	Keys map[CallerKeyID]KeyCounts `json:"keys,omitempty"`
	// Counter names the counters of Keys: whoever begins anew has another one. Empty: the gateway's name stands for it.
	Counter string `json:"counter,omitempty"`
	// EarlierKeys are Keys of earlier processes of the gateway, by Counter, that no server has accepted yet.
	EarlierKeys map[string]map[CallerKeyID]KeyCounts `json:"earlier_keys,omitempty"`
}

// LimitID identifies a limit that all gateways count together: of a key, or of
// one caller of a service.
type LimitID string

// Demand is how many requests a second a gateway's callers send lately that count
// for a limit, refused ones included. Of a run as a whole only the proportion
// between gateways matters.
type Demand float64

// LoadAnswer answers a LoadReport. A gateway that gets none goes on by its last one.
type LoadAnswer struct {
	// Gateways is how many gateways reported lately, this one included; 0: not known.
	Gateways int `json:"gateways,omitempty"`
	// Shares is which part of a limit the gateway may use. Of a limit that is not
	// in it, each gateway has the same part.
	Shares map[LimitID]float64 `json:"shares,omitempty"`
}

// KeyCounts counts the requests with one key for callers.
type KeyCounts struct {
	Requests uint64 `json:"requests"`          // that were allowed
	Refused  uint64 `json:"refused,omitempty"` // because there were too many, or the key is not for what they name
}

// RunLoad is what one gateway counted for one run.
type RunLoad struct {
	Window      time.Duration     `json:"window"`
	Watched     time.Duration     `json:"watched"`  // how much of the window the gateway has observed
	Requests    int               `json:"requests"` // requests that arrived within the window
	Concurrency float64           `json:"busy"`     // requests in flight and waiting, averaged over the window
	InFlight    int               `json:"in_flight"`
	Held        int               `json:"held"`               // requests waiting for a replica
	Replicas    map[ReplicaID]int `json:"replicas,omitempty"` // requests in flight for each replica; replicas without any are left out
	Metrics     RunMetrics        `json:"metrics,omitzero"`
}

// RunMetrics are counters of the requests to one run. They start when the
// gateway first has the run in its route table.
type RunMetrics struct {
	Requests   uint64        `json:"requests"` // requests sent to a replica
	TokensIn   int64         `json:"tokens_in,omitempty"`
	TokensOut  int64         `json:"tokens_out,omitempty"`
	FirstToken time.Duration `json:"first_token,omitempty"` // median time to the first token of the latest streams
	Streams    int           `json:"streams,omitempty"`     // how many streams FirstToken covers; 0: FirstToken is unknown
}

// SumMetrics adds what several gateways report of one run. Its FirstToken is
// the median of the reported medians, each weighted by its Streams: exact for
// one gateway, and an approximation for several.
func SumMetrics(reports []RunMetrics) RunMetrics {
	var sum RunMetrics
	for _, m := range reports {
		sum.Requests += m.Requests
		sum.TokensIn += m.TokensIn
		sum.TokensOut += m.TokensOut
		sum.Streams += m.Streams
	}
	byFirstToken := slices.SortedFunc(slices.Values(reports), func(a, b RunMetrics) int { return cmp.Compare(a.FirstToken, b.FirstToken) })
	covered := 0
	for _, m := range byFirstToken {
		if covered += m.Streams; m.Streams > 0 && 2*covered > sum.Streams {
			sum.FirstToken = m.FirstToken
			break
		}
	}
	return sum
}
