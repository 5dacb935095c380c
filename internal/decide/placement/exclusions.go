package placement

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// How long offers are excluded.
const (
	// ExcludeTime is longer than a new replica waits for a machine by default (a minute), so that a run without another
	// offer fails instead of trying the same offer endlessly.
	ExcludeTime     = 5 * time.Minute
	quotaExcludes   = 30 * time.Minute // somebody has to ask for more
	maxRetryExclude = time.Hour        // however long the backend asks to wait
)

// Exclusions are offers whose machines could not be created, or failed, so that
// replicas try the next offer. The zero value has none.
type Exclusions struct {
	recent   map[offerKey]exclusion
	patterns map[patternKey]exclusion
	forRun   map[runMachine]exclusion
}

// runMachine is a machine that could not start a replica of a run.
type runMachine struct {
	run      dstack.RunID
	instance dstack.InstanceID
}

// offerKey identifies the offers that one exclusion covers; an empty field covers all: those of a machine type in a zone
// or region, of a region, or of a backend.
type offerKey struct {
	backend, region, zone, machineType string
	spot                               bool
	scope                              dstack.FailureScope
}

// patternKey identifies the offers of the types of a region that match a pattern.
type patternKey struct {
	backend, region, pattern string
	spot                     bool
}

type exclusion struct {
	until  time.Time
	reason string   // for the user
	zones  []string // not excluded: they have room
}

// keysOf returns the keys that cover an offer, the narrowest first.
func keysOf(o *dstack.Offer) [4]offerKey {
	return [4]offerKey{
		keyFor(o, dstack.ScopeZone), keyFor(o, dstack.ScopeRegion), keyFor(o, dstack.ScopePlace), keyFor(o, dstack.ScopeBackend),
	}
}

// keyFor returns the key of the offers that a failure of an offer concerns.
func keyFor(o *dstack.Offer, scope dstack.FailureScope) offerKey {
	key := offerKey{o.Key, o.Region, o.Zone, o.Type, o.Spot, scope}
	switch scope {
	case dstack.ScopeZone, dstack.ScopeTypes:
	case dstack.ScopeRegion:
		key.zone = ""
	case dstack.ScopePlace:
		key.zone, key.machineType, key.spot = "", "", false
	case dstack.ScopeBackend:
		key.region, key.zone, key.machineType, key.spot = "", "", "", false
	}
	return key
}

// Exclude leaves out for a while the offers that a failure of one offer concerns. If the failure names zones that have
// room, the other zones of the type are left out, too. Machines that exist are never left out.
func (e *Exclusions) Exclude(o dstack.Offer, f dstack.MachineFailure, now time.Time) {
	if o.OwnedInstance != "" {
		return
	}
	x := exclusion{until: now.Add(excludeTime(f)), reason: f.Message}
	if e.recent == nil {
		e.recent, e.patterns = map[offerKey]exclusion{}, map[patternKey]exclusion{}
	}
	switch {
	case f.Scope == dstack.ScopeTypes && len(f.Types) > 0:
		for _, pattern := range f.Types {
			e.patterns[patternKey{o.Key, o.Region, pattern, o.Spot}] = x
		}
	case f.Scope == dstack.ScopeZone && len(f.Zones) > 0:
		e.recent[keyFor(&o, dstack.ScopeZone)] = x
		x.zones = f.Zones
		e.recent[keyFor(&o, dstack.ScopeRegion)] = x
	default:
		e.recent[keyFor(&o, f.Scope)] = x
	}
}

// excludeTime returns for how long the offers of a failure are left out.
func excludeTime(f dstack.MachineFailure) time.Duration {
	limit := ExcludeTime
	if f.Cause == dstack.FailureQuota {
		limit = quotaExcludes
	}
	return max(limit, min(f.RetryAfter, maxRetryExclude))
}

// ExcludeForRun leaves out a machine that exists for ExcludeTime for the replicas of one run.
func (e *Exclusions) ExcludeForRun(run dstack.RunID, o dstack.Offer, reason string, now time.Time) {
	if e.forRun == nil {
		e.forRun = map[runMachine]exclusion{}
	}
	e.forRun[runMachine{run, o.OwnedInstance}] = exclusion{until: now.Add(ExcludeTime), reason: reason}
}

// SplitForRun returns the offers that are not excluded for a run, and why the others are. It
// forgets the exclusions that are over.
func (e *Exclusions) SplitForRun(run dstack.RunID, offers []dstack.Offer, now time.Time) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	forgetOver(e.forRun, now)
	offers, rejected = e.Split(offers, now)
	if len(e.forRun) == 0 {
		return offers, rejected
	}
	for i := range offers {
		x, isExcluded := e.forRun[runMachine{run, offers[i].OwnedInstance}]
		if isExcluded && offers[i].OwnedInstance != "" {
			rejected = append(rejected, x.reject(&offers[i], now))
		} else {
			allowed = append(allowed, offers[i])
		}
	}
	return allowed, rejected
}

// Split returns the offers that are not excluded, and why the others are. It
// forgets the exclusions that are over.
func (e *Exclusions) Split(offers []dstack.Offer, now time.Time) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	forgetOver(e.recent, now)
	forgetOver(e.patterns, now)
	if len(e.recent) == 0 && len(e.patterns) == 0 {
		return offers, nil
	}
	for i := range offers {
		if x, isExcluded := e.find(&offers[i]); isExcluded {
			rejected = append(rejected, x.reject(&offers[i], now))
		} else {
			allowed = append(allowed, offers[i])
		}
	}
	return allowed, rejected
}

// find returns the exclusion of an offer.
func (e *Exclusions) find(o *dstack.Offer) (exclusion, bool) {
	if o.OwnedInstance != "" {
		return exclusion{}, false
	}
	for _, key := range keysOf(o) {
		if x, ok := e.recent[key]; ok && !slices.Contains(x.zones, o.Zone) {
			return x, true
		}
	}
	for key, x := range e.patterns {
		if key.backend == o.Key && key.region == o.Region && key.spot == o.Spot {
			if ok, err := path.Match(key.pattern, o.Type); ok && err == nil {
				return x, true
			}
		}
	}
	return exclusion{}, false
}

// reject says why an offer is left out, and for how long.
func (x exclusion) reject(o *dstack.Offer, now time.Time) dstack.Rejection {
	left := max(int(math.Ceil(x.until.Sub(now).Minutes())), 1)
	return dstack.Rejection{Offer: *o, Constraint: dstack.ConstraintFailedLately, Has: x.reason,
		Reason: fmt.Sprintf("failed lately: %s; it is left out for %dm", x.reason, left)}
}

// forgetOver forgets the exclusions that are over.
func forgetOver[K comparable](all map[K]exclusion, now time.Time) {
	for key, x := range all {
		if !now.Before(x.until) {
			delete(all, key)
		}
	}
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
