package gateway

import (
	"sync"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// Load is what a run does at one moment.
type Load struct {
	Accepted uint64 // requests given to a replica since the gateway knows the run
	InFlight int
	Held     int // requests that wait for a replica: they are demand
	Replicas map[dstack.ReplicaID]int
}

// view is a route table made ready for use: with the loads of its replicas
// at hand. It never changes once made.
type view struct {
	*route.Index
	places map[dstack.RunID][]*place
}

// place is a ready replica.
type place struct {
	route  *route.Route
	target route.Target
	load   *load
}

// load is what one replica does. It outlives tables.
type load struct {
	run      dstack.RunID
	inFlight int
	turn     uint64    // when it was last picked
	shunned  time.Time // until when others are preferred
}

// loads counts. One lock serves all: what is done under it takes well under a
// microsecond.
type loads struct {
	mu       sync.Mutex
	turn     uint64
	replicas map[dstack.ReplicaID]*load
	accepted map[dstack.RunID]uint64
}

func newLoads() *loads {
	return &loads{replicas: map[dstack.ReplicaID]*load{}, accepted: map[dstack.RunID]uint64{}}
}

// adopt makes a view of an index. A replica that it does not name any more is
// forgotten once nothing is in flight to it.
func (l *loads) adopt(x *route.Index) *view {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := &view{Index: x, places: map[dstack.RunID][]*place{}}
	known := map[dstack.ReplicaID]bool{}
	runs := map[dstack.RunID]uint64{}
	x.Runs(func(r *route.Route) {
		runs[r.Run] = l.accepted[r.Run]
		for _, t := range r.Ready {
			known[t.Replica] = true
			v.places[r.Run] = append(v.places[r.Run], &place{route: r, target: t, load: l.of(r.Run, t.Replica)})
		}
	})
	for id, load := range l.replicas {
		if !known[id] && load.inFlight == 0 {
			delete(l.replicas, id)
		}
	}
	l.accepted = runs
	return v
}

func (l *loads) of(run dstack.RunID, id dstack.ReplicaID) *load {
	if l.replicas[id] == nil {
		l.replicas[id] = &load{run: run}
	}
	l.replicas[id].shunned = time.Time{} // the table is newer than what we saw
	return l.replicas[id]
}

// leave says that a request has left its replica.
func (l *loads) leave(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.load.inFlight--
}

// shun makes a replica that refused a connection the last choice until then.
func (l *loads) shun(p *place, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.load.shunned = until
}

// snapshot returns the load of every run in the table, and of those that have
// left it and still answer. What is held is not in it.
func (l *loads) snapshot() map[dstack.RunID]Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[dstack.RunID]Load, len(l.accepted))
	for run, n := range l.accepted {
		all[run] = Load{Accepted: n, Replicas: map[dstack.ReplicaID]int{}}
	}
	for id, load := range l.replicas {
		sum := all[load.run]
		if sum.Replicas == nil {
			sum.Replicas = map[dstack.ReplicaID]int{}
		}
		sum.InFlight += load.inFlight
		sum.Replicas[id] = load.inFlight
		all[load.run] = sum
	}
	return all
}
