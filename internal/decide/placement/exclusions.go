package placement

import (
	"strings"
	"time"

	"dstack/internal/dstack"
)

// ExcludeTime is how long an offer is excluded. It is longer than a new replica
// waits for a machine by default (a minute), so that a run without another offer
// fails instead of trying the same offer endlessly.
const ExcludeTime = 5 * time.Minute

// Exclusions are offers whose machines could not be created, or failed, so that
// replicas try the next offer. The zero value has none.
type Exclusions struct {
	recent map[offerKey]exclusion
	forRun map[runMachine]exclusion
}

// runMachine is an owned machine that could not start a replica of a run.
type runMachine struct {
	run      dstack.RunID
	instance dstack.InstanceID
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

func keyOf(o dstack.Offer) offerKey { return offerKey{o.Key, o.Region, o.Type, o.Spot} }

// Exclude leaves out an offer for ExcludeTime. With wholeBackend it leaves out
// every offer of its backend. Owned machines are never left out.
func (e *Exclusions) Exclude(o dstack.Offer, wholeBackend bool, reason string, now time.Time) {
	if o.OwnedInstance != "" {
		return
	}
	key := keyOf(o)
	if wholeBackend {
		key = offerKey{backend: o.Key}
	}
	if e.recent == nil {
		e.recent = map[offerKey]exclusion{}
	}
	e.recent[key] = exclusion{now.Add(ExcludeTime), reason}
}

// ExcludeForRun leaves out an owned machine for ExcludeTime for the replicas of one run.
func (e *Exclusions) ExcludeForRun(run dstack.RunID, o dstack.Offer, reason string, now time.Time) {
	if e.forRun == nil {
		e.forRun = map[runMachine]exclusion{}
	}
	e.forRun[runMachine{run, o.OwnedInstance}] = exclusion{now.Add(ExcludeTime), reason}
}

// SplitForRun returns the offers that are not excluded for a run, and why the others are. It
// forgets the exclusions that are over.
func (e *Exclusions) SplitForRun(run dstack.RunID, offers []dstack.Offer, now time.Time) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	for key, x := range e.forRun {
		if !now.Before(x.until) {
			delete(e.forRun, key)
		}
	}
	offers, rejected = e.Split(offers, now)
	if len(e.forRun) == 0 {
		return offers, rejected
	}
	for _, o := range offers {
		if x, isExcluded := e.forRun[runMachine{run, o.OwnedInstance}]; isExcluded {
			rejected = append(rejected, dstack.Rejection{Offer: o, Constraint: dstack.ConstraintFailedLately, Has: x.reason,
				Reason: "failed lately: " + x.reason})
		} else {
			allowed = append(allowed, o)
		}
	}
	return allowed, rejected
}

// Split returns the offers that are not excluded, and why the others are. It
// forgets the exclusions that are over.
func (e *Exclusions) Split(offers []dstack.Offer, now time.Time) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	for key, x := range e.recent {
		if !now.Before(x.until) {
			delete(e.recent, key)
		}
	}
	if len(e.recent) == 0 {
		return offers, nil
	}
	for _, o := range offers {
		x, isExcluded := e.recent[keyOf(o)]
		if !isExcluded {
			x, isExcluded = e.recent[offerKey{backend: o.Key}]
		}
		if isExcluded && o.OwnedInstance == "" {
			rejected = append(rejected, dstack.Rejection{Offer: o, Constraint: dstack.ConstraintFailedLately, Has: x.reason,
				Reason: "failed lately: " + x.reason})
		} else {
			allowed = append(allowed, o)
		}
	}
	return allowed, rejected
}

// LeaveOut returns the offers whose machines are not away, and why the others are left out.
func LeaveOut(offers []dstack.Offer, away map[dstack.InstanceID]dstack.Reason) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	for _, o := range offers {
		why, isAway := away[o.OwnedInstance]
		if !isAway {
			allowed = append(allowed, o)
			continue
		}
		has := strings.TrimPrefix(strings.TrimPrefix(string(why), "host "+o.Type+" "), "node "+o.Type+" ")
		rejected = append(rejected, dstack.Rejection{Offer: o, Constraint: dstack.ConstraintUsable, Has: has, Reason: has})
	}
	return allowed, rejected
}
