package dstack

import "time"

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
}

// LoadReport is what one gateway reports to the control plane. A run that is
// not in Runs has no request in flight, waiting or counted.
type LoadReport struct {
	Gateway       string        // unique name of the gateway
	TableVersion  uint64        // version of the route table that the gateway uses
	DrainSequence int64         // the drain sequence of that table; 0: unknown
	Watched       time.Duration // how long the gateway has been counting
	Runs          map[RunID]RunLoad
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
}
