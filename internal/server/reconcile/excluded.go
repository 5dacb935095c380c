package reconcile

import (
	"sync"
	"time"

	"dstack/internal/dstack"
)

// excludeTime is how long an offer is excluded. It is longer than a new replica
// waits for a machine by default (a minute), so that a run without another offer
// fails instead of trying the same offer endlessly.
const excludeTime = 5 * time.Minute

// excludedOffers remembers offers whose machines could not be created, or failed,
// so that replicas try the next offer. It is kept in memory: a restarted server
// tries each offer once more.
type excludedOffers struct {
	mu     sync.Mutex
	recent map[offerKey]exclusion
}

// offerKey identifies the offers that one exclusion covers: those of a machine
// type in a region, or with the backend alone all of a backend.
type offerKey struct {
	backend, region, machineType string
	spot                         bool
}

type exclusion struct {
	until  time.Time
	reason string // for the user
}

func newExcludedOffers() *excludedOffers {
	return &excludedOffers{recent: map[offerKey]exclusion{}}
}

func keyOf(o dstack.Offer) offerKey { return offerKey{o.Key, o.Region, o.Type, o.Spot} }

// exclude leaves out an offer for a while. With wholeBackend it leaves out every
// offer of its backend. Owned machines are never left out.
func (e *excludedOffers) exclude(o dstack.Offer, wholeBackend bool, why string, now time.Time) {
	if o.OwnedInstance != "" {
		return
	}
	key := keyOf(o)
	if wholeBackend {
		key = offerKey{backend: o.Key}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recent[key] = exclusion{now.Add(excludeTime), why}
}

// split returns the offers that are not excluded, and why the others are.
func (e *excludedOffers) split(
	offers []dstack.Offer, now time.Time,
) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, x := range e.recent {
		if !now.Before(x.until) {
			delete(e.recent, key)
		}
	}
	if len(e.recent) == 0 {
		return offers, nil
	}
	for _, o := range offers {
		x, excluded := e.recent[keyOf(o)]
		if !excluded {
			x, excluded = e.recent[offerKey{backend: o.Key}]
		}
		if excluded && o.OwnedInstance == "" {
			rejected = append(rejected, dstack.Rejection{Offer: o, Reason: "failed lately: " + x.reason})
		} else {
			allowed = append(allowed, o)
		}
	}
	return allowed, rejected
}
