package gateway

import (
	"slices"
	"time"

	"dstack/internal/decide/route"
)

// pick chooses one ready replica of any of the routes for a request and
// counts the request there, until leave. It leaves out the addresses in not,
// and returns nil when nobody is left. Routes in panic are the last choice. A
// request picked for again is not counted as accepted twice. Only the view
// that counts may be picked from; with another one nobody is left.
func (l *loadTracker) pick(v *view, routes []*route.Route, not []string, again bool) *readyReplica {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v != l.view.Load() {
		return nil
	}
	best := v.bestReplica(routes, not)
	if best == nil {
		return nil
	}
	l.turn++
	best.load.turn = l.turn
	best.load.inFlight++
	run := l.runLoadOf(best.route.Run)
	run.inFlight++
	run.window.addBusy(l.now(), 1)
	if !again {
		run.accepted++
	}
	return best
}

// nextRoute is the route of the replica that pick would choose, or nil.
func (l *loadTracker) nextRoute(v *view, routes []*route.Route, not []string) *route.Route {
	l.mu.Lock()
	defer l.mu.Unlock()
	if best := v.bestReplica(routes, not); best != nil {
		return best.route
	}
	return nil
}

// bestReplica is the replica that is picked next. Loads are read: their lock is held.
func (v *view) bestReplica(routes []*route.Route, not []string) (best *readyReplica) {
	for _, r := range routes {
		for _, p := range v.replicas[r.Run] {
			if slices.Contains(not, p.target.Address) {
				continue
			}
			if best == nil || isPreferred(p, best) {
				best = p
			}
		}
	}
	return best
}

// isPreferred prefers a replica that answers its probes to one that is tried only
// because no other of its run does.
func isPreferred(a, b *readyReplica) bool {
	if a.route.PanicMode != b.route.PanicMode {
		return b.route.PanicMode
	}
	return isLessLoaded(a.load, b.load)
}

// isLessLoaded prefers a to b when it has fewer requests in flight, and among equals
// the one whose turn was longer ago. One that has just refused a connection
// comes last: it has few requests because it takes none.
func isLessLoaded(a, b *replicaLoad) bool {
	if !a.shunned.Equal(b.shunned) {
		now := time.Now()
		if a, b := a.shunned.After(now), b.shunned.After(now); a != b {
			return b
		}
	}
	if a.inFlight != b.inFlight {
		return a.inFlight < b.inFlight
	}
	return a.turn < b.turn
}
