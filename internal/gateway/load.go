package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Load is what a run does at one moment.
type Load struct {
	Accepted uint64 // requests given to a replica since the gateway knows the run
	Limited  uint64 // requests refused because their caller sent too many
	InFlight int
	Held     int // requests that wait for a replica: they are demand
	Replicas map[dstack.ReplicaID]int
}

// view is a route table made ready for use: with the loads of its replicas
// at hand. It never changes once made.
type view struct {
	*route.Index
	replicas map[dstack.RunID][]*readyReplica
}

// readyReplica is a ready replica.
type readyReplica struct {
	route  *route.Route
	target route.Target
	load   *replicaLoad
}

// loadKey names the load of a replica, which is of one run.
type loadKey struct {
	run     dstack.RunID
	replica dstack.ReplicaID
}

// replicaLoad is what one replica does. It outlives tables.
type replicaLoad struct {
	loadKey
	inFlight int
	left     bool      // it is in the table no more
	turn     uint64    // when it was last picked
	shunned  time.Time // until when others are preferred
}

// runLoad is what one run does. It outlives tables, too.
type runLoad struct {
	accepted, limited uint64
	inFlight, held    int
	left              bool // it is in the table no more
	window            window
}

// loadTracker counts. One lock serves all: what is done under it takes well under a
// microsecond. Whoever is counted at a replica was picked from the view of
// that moment, so that a count and its view's version say together what a
// replica may still get.
type loadTracker struct {
	view  atomic.Pointer[view] // changes under the lock
	began time.Time
	news  loop.Wake // something that is to be told at once

	mu       sync.Mutex
	turn     uint64
	replicas map[loadKey]*replicaLoad
	runs     map[dstack.RunID]*runLoad
}

func newLoadTracker() *loadTracker {
	return &loadTracker{began: time.Now(), news: loop.NewWake(), replicas: map[loadKey]*replicaLoad{}, runs: map[dstack.RunID]*runLoad{}}
}

// now is the time of windows.
func (l *loadTracker) now() time.Duration { return time.Since(l.began) }

// applyTable makes a view of an index, the one that counts from now on. What it
// does not name any more is forgotten once nothing is in flight to it.
func (l *loadTracker) applyTable(x *route.Index) *view {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := &view{Index: x, replicas: map[dstack.RunID][]*readyReplica{}}
	known, runs := map[loadKey]bool{}, map[dstack.RunID]bool{}
	x.Runs(func(r *route.Route) {
		runs[r.Run] = true
		run := l.runLoadOf(r.Run)
		run.left = false
		run.window.resize(l.now(), r.Rules.Window)
		for _, t := range r.Ready {
			known[loadKey{r.Run, t.Replica}] = true
			v.replicas[r.Run] = append(v.replicas[r.Run], &readyReplica{route: r, target: t, load: l.loadOf(loadKey{r.Run, t.Replica})})
		}
	})
	for key, load := range l.replicas {
		if known[key] {
			continue
		}
		if !load.left {
			load.left = true
			l.news.Signal()
		}
		l.forgetReplica(load)
	}
	for id, run := range l.runs {
		if !runs[id] {
			run.left = true
			l.forgetRun(id, run)
		}
	}
	l.view.Store(v)
	return v
}

func (l *loadTracker) loadOf(key loadKey) *replicaLoad {
	one := l.replicas[key]
	if one == nil {
		one = &replicaLoad{loadKey: key}
		l.replicas[key] = one
	}
	one.left, one.shunned = false, time.Time{} // the table is newer than what we saw
	return one
}

// runLoadOf is the load of a run, which may have left the table a moment ago.
func (l *loadTracker) runLoadOf(id dstack.RunID) *runLoad {
	if l.runs[id] == nil {
		l.runs[id] = &runLoad{left: true, window: newWindow(l.now())}
	}
	return l.runs[id]
}

func (l *loadTracker) forgetReplica(load *replicaLoad) {
	if load.left && load.inFlight == 0 {
		delete(l.replicas, load.loadKey)
	}
}

func (l *loadTracker) forgetRun(id dstack.RunID, run *runLoad) {
	if run.left && run.inFlight == 0 && run.held == 0 {
		delete(l.runs, id)
	}
}

// release says that a request has left its replica.
func (l *loadTracker) release(p *readyReplica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run := l.runLoadOf(p.load.run)
	run.inFlight--
	run.window.addBusy(l.now(), -1)
	l.forgetRun(p.load.run, run)
	if p.load.inFlight--; p.load.left && p.load.inFlight == 0 {
		l.news.Signal()
		l.forgetReplica(p.load)
	}
}

// penalize makes a replica that refused a connection, or broke one, the last
// choice until then.
func (l *loadTracker) penalize(p *readyReplica, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.load.shunned = until
}

// countWaiting counts requests that begin to wait for a run, or cease to.
func (l *loadTracker) countWaiting(id dstack.RunID, by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run := l.runLoadOf(id)
	if run.held += by; run.held == by {
		l.news.Signal()
	}
	run.window.addBusy(l.now(), by)
	l.forgetRun(id, run)
}

// arrival is where a request was counted as one that came in.
type arrival struct {
	run    dstack.RunID
	second int64
}

// countArrival counts a request that comes in for a run, unless it was counted
// there. One that was counted at another run moves: it counts once.
func (l *loadTracker) countArrival(was *arrival, id dstack.RunID) {
	if was.run == id {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if old := l.runs[was.run]; old != nil {
		old.window.retract(now, was.second)
	}
	*was = arrival{id, l.runLoadOf(id).window.countArrival(now)}
}

// countLimited counts a request that was refused because its caller sent too many.
func (l *loadTracker) countLimited(id dstack.RunID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runLoadOf(id).limited++
}

// snapshot returns the load of every run in the table, and of those that have
// left it and still answer. What is held is not in it.
func (l *loadTracker) snapshot() map[dstack.RunID]Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[dstack.RunID]Load, len(l.runs))
	for id, run := range l.runs {
		all[id] = Load{Accepted: run.accepted, Limited: run.limited, InFlight: run.inFlight, Replicas: map[dstack.ReplicaID]int{}}
	}
	for key, load := range l.replicas {
		all[key.run].Replicas[key.replica] = load.inFlight
	}
	return all
}

// loadReport is all there is to tell, with the version of the view that it was
// counted by.
func (l *loadTracker) loadReport() dstack.LoadReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := dstack.LoadReport{Runs: map[dstack.RunID]dstack.RunLoad{}}
	if v := l.view.Load(); v != nil {
		c.TableVersion, c.DrainSequence = v.Version, v.DrainSequence
	}
	now := l.now()
	c.Watched = now
	for id, run := range l.runs {
		requests, busy, watched := run.window.totals(now)
		length := time.Duration(run.window.length) * time.Second
		young := watched < min(length, now-time.Second) // it was not counted for as long as others
		if requests > 0 || run.inFlight > 0 || run.held > 0 || busy > 0 || young {
			c.Runs[id] = dstack.RunLoad{Window: length, Watched: watched,
				Requests: requests, Concurrency: busy, InFlight: run.inFlight, Held: run.held}
		}
	}
	for key, load := range l.replicas {
		if load.inFlight == 0 {
			continue
		}
		one := c.Runs[key.run]
		if one.Replicas == nil {
			one.Replicas = map[dstack.ReplicaID]int{}
		}
		one.Replicas[key.replica] = load.inFlight
		c.Runs[key.run] = one
	}
	return c
}
