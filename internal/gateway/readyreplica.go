package gateway

import (
	"slices"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// pickReplica chooses one ready replica of the routes for a request, and counts the
// request there until release. It skips excluded endpoints, and returns nil
// when none is left or v is not the present view. A retry is not counted as
// accepted again.
func (l *loadTracker) pickReplica(v *view, routes []*route.Route, excluded []dstack.Endpoint,
	isRetry bool) *readyReplica {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v != l.view.Load() {
		return nil
	}
	best := v.bestReplica(routes, excluded)
	if best == nil {
		return nil
	}
	l.picks++
	best.load.lastPicked = l.picks
	best.load.inFlight++
	run := l.runLoadOf(best.route.Run)
	run.inFlight++
	run.window.addBusy(l.elapsed(), 1)
	if isRetry {
		run.counts.countRetry()
	} else {
		run.accepted++
	}
	return best
}

// nextRoute returns the route of the replica that pick would choose, or nil.
func (l *loadTracker) nextRoute(v *view, routes []*route.Route, excluded []dstack.Endpoint) *route.Route {
	l.mu.Lock()
	defer l.mu.Unlock()
	if best := v.bestReplica(routes, excluded); best != nil {
		return best.route
	}
	return nil
}

// bestReplica returns the replica to pick next. The caller holds the lock of the
// loads.
func (v *view) bestReplica(routes []*route.Route, excluded []dstack.Endpoint) (best *readyReplica) {
	for _, r := range routes {
		for _, candidate := range v.replicas[r.Run] {
			if len(excluded) > 0 && slices.Contains(excluded, candidate.target.Endpoint) {
				continue
			}
			if best == nil || isPreferred(candidate, best) {
				best = candidate
			}
		}
	}
	return best
}

// isPreferred prefers a replica that passes its probes to one of a run in panic
// mode, and then the less loaded one.
func isPreferred(a, b *readyReplica) bool {
	if a.route.PanicMode != b.route.PanicMode {
		return b.route.PanicMode
	}
	return isLessLoaded(a.load, b.load)
}

// isLessLoaded prefers a to b when it has fewer requests in flight, and among
// equals the one that was picked longer ago. A penalized replica comes last: it
// has few requests because it accepts none.
func isLessLoaded(a, b *replicaLoad) bool {
	if !a.penalizedUntil.Equal(b.penalizedUntil) {
		now := time.Now()
		if a, b := a.penalizedUntil.After(now), b.penalizedUntil.After(now); a != b {
			return b
		}
	}
	if a.inFlight != b.inFlight {
		return a.inFlight < b.inFlight
	}
	return a.lastPicked < b.lastPicked
}
