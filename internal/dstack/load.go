package dstack

import "time"

// Load is what the gateways saw of a run, summed.
type Load struct {
	Known    bool              // some gateway has told lately; false: all the rest means nothing
	Window   time.Duration     // what Requests and Busy are about
	Watched  time.Duration     // for how much of the window a gateway was there to count
	Requests int               // that came in within the window, those that wait included
	Busy     float64           // requests in flight and waiting, averaged over the window
	InFlight int               // now
	Held     int               // waiting for a replica now
	Replicas map[ReplicaID]int // in flight now, where there is anything
	// AsOf says that every gateway goes by routes that hold all that was saved
	// until then: a replica that was taken out before gets nothing new. Zero:
	// not known.
	AsOf time.Time
}
