package gateway

import (
	"slices"
	"time"

	"dstack/internal/decide/route"
)

// pick chooses one ready replica of any of the routes for a request and
// counts the request there, until leave. It leaves out the addresses in not,
// and returns nil when nobody is left. A request picked for again is not
// counted as accepted twice. Only the view that counts may be picked from;
// with another one nobody is left.
func (l *loads) pick(v *view, routes []*route.Route, not []string, again bool) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v != l.view.Load() {
		return nil
	}
	var best *place
	for _, r := range routes {
		for _, p := range v.places[r.Run] {
			if slices.Contains(not, p.target.Address) {
				continue
			}
			if best == nil || fewest(p.load, best.load) {
				best = p
			}
		}
	}
	if best == nil {
		return nil
	}
	l.turn++
	best.load.turn = l.turn
	best.load.inFlight++
	run := l.runOf(best.route.Run)
	run.inFlight++
	run.window.busier(l.now(), 1)
	if !again {
		run.accepted++
	}
	return best
}

// fewest prefers a to b when it has fewer requests in flight, and among equals
// the one whose turn was longer ago. One that has just refused a connection
// comes last: it has few requests because it takes none.
func fewest(a, b *load) bool {
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
