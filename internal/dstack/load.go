package dstack

import "time"

// Load is what the gateways saw of a run, summed.
type Load struct {
	Known       bool              // some gateway has told lately; false: all the rest means nothing
	Window      time.Duration     // what Requests and Busy are about
	Watched     time.Duration     // for how much of the window a gateway was there to count
	Requests    int               // that came in within the window, those that wait included
	Concurrency float64           // requests in flight and waiting, averaged over the window
	InFlight    int               // now
	Held        int               // waiting for a replica now
	Replicas    map[ReplicaID]int // in flight now, where there is anything
	// Drained are draining replicas that get nothing any more: no gateway has
	// them in its table, nor anything in flight to them.
	Drained map[ReplicaID]bool
}

// LoadReport is what one gateway counted: all runs with anything to tell. A run
// that is not in it has nothing in flight, waiting or counted.
type LoadReport struct {
	Gateway       string        // names it, among all that tell
	TableVersion  uint64        // the version of the route table that it goes by
	DrainSequence int64         // what that table says of itself; 0: not known
	Watched       time.Duration // for how long it has counted at all
	Runs          map[RunID]RunLoad
}

// RunLoad is what one gateway counted of one run.
type RunLoad struct {
	Window      time.Duration     `json:"window"`
	Watched     time.Duration     `json:"watched"`  // for how much of the window it counted
	Requests    int               `json:"requests"` // that came in within the window
	Concurrency float64           `json:"busy"`     // in flight and waiting, averaged over the window
	InFlight    int               `json:"in_flight"`
	Held        int               `json:"held"`
	Replicas    map[ReplicaID]int `json:"replicas,omitempty"` // in flight, where there is anything
}
