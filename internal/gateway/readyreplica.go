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
	if best != nil {
		l.countPick(best, l.elapsed(), isRetry)
	}
	return best
}

// countPick counts a request at a replica. The caller holds the lock.
func (l *loadTracker) countPick(r *readyReplica, now time.Duration, isRetry bool) {
	l.picks++
	r.load.lastPicked = l.picks
	r.load.inFlight++
	r.run.inFlight++
	r.run.window.addBusy(now, 1)
	if isRetry {
		r.counts.countRetry()
	} else {
		r.run.accepted++
	}
}

// pickReplicaOf is pickReplica for one run, and countArrival: all under one lock. It finds no replica if v is not the present
// view, and counts the arrival only with a replica.
func (l *loadTracker) pickReplicaOf(v *view, run *viewedRun, excluded []dstack.Endpoint, isRetry bool, at *arrival) *readyReplica {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v != l.view.Load() {
		return nil
	}
	best := run.bestReplica(excluded, nil)
	if best == nil {
		return nil
	}
	now := l.elapsed()
	l.countPick(best, now, isRetry)
	l.moveArrival(at, run.route.Run, run.load, now)
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
		if run := v.runs[r.Run]; run != nil {
			best = run.bestReplica(excluded, best)
		}
	}
	return best
}

// bestReplica returns the replica to pick next among those of the run and best, which may be nil.
func (r *viewedRun) bestReplica(excluded []dstack.Endpoint, best *readyReplica) *readyReplica {
	for _, candidate := range r.replicas {
		if len(excluded) > 0 && slices.Contains(excluded, candidate.target.Endpoint) {
			continue
		}
		if best == nil || isPreferred(candidate, best) {
			best = candidate
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
