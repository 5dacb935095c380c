package gateway

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Load is what a run does at one moment.
type Load struct {
	Accepted uint64 // requests sent to a replica since the gateway knows the run
	Limited  uint64 // requests refused because their caller sent too many
	InFlight int
	Held     int                      // requests that wait for a replica: they are demand
	Replicas map[dstack.ReplicaID]int // requests in flight, of all ready replicas
}

// view is a route table with the loads of its runs and replicas. It is immutable.
type view struct {
	*route.Index
	runs map[dstack.RunID]*viewedRun
}

// viewedRun is a run in a view.
type viewedRun struct {
	route    *route.Route
	load     *runLoad
	replicas []*readyReplica
	isDirect bool // the relay can connect to each replica itself: see isDirect
}

// readyReplica is a replica in a view.
type readyReplica struct {
	route  *route.Route
	target route.Target
	load   *replicaLoad
	run    *runLoad
	counts *runCounts // of its run
}

// loadKey names the load of a replica, which belongs to one run.
type loadKey struct {
	run     dstack.RunID
	replica dstack.ReplicaID
}

// replicaLoad is what one replica does. It outlives views.
type replicaLoad struct {
	loadKey
	inFlight       int
	isRemoved      bool      // not in the table any more
	lastPicked     uint64    // the number of the pick
	penalizedUntil time.Time // other replicas are preferred
}

// runLoad is what one run does. It outlives views.
type runLoad struct {
	accepted, limited uint64
	inFlight, held    int
	isRemoved         bool // not in the table any more
	window            window
	counts            *runCounts
}

// loadTracker counts requests by run and by replica. One lock guards all: what
// is done under it takes well under a microsecond. Requests are counted at
// replicas of the view of that moment only, so that a count together with the
// version of its view tells what a replica may still get.
type loadTracker struct {
	view    atomic.Pointer[view] // changes under the lock
	began   time.Time
	changed loop.Wake // something to report at once

	mu       sync.Mutex
	picks    uint64
	replicas map[loadKey]*replicaLoad
	runs     map[dstack.RunID]*runLoad
}

func newLoadTracker() *loadTracker {
	return &loadTracker{
		began: time.Now(), changed: loop.NewWake(),
		replicas: map[loadKey]*replicaLoad{}, runs: map[dstack.RunID]*runLoad{},
	}
}

// elapsed is the time since the gateway began, by which windows count.
func (l *loadTracker) elapsed() time.Duration { return time.Since(l.began) }

// applyTable makes a view of an index, by which requests are counted from now
// on. Loads that are not in it are forgotten once nothing is in flight.
func (l *loadTracker) applyTable(x *route.Index) *view {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Almost always, the runs and replicas are those of the table before: maps of that size need not grow.
	v := &view{Index: x, runs: make(map[dstack.RunID]*viewedRun, len(l.runs))}
	known, runs := make(map[loadKey]bool, len(l.replicas)), make(map[dstack.RunID]bool, len(l.runs))
	x.Runs(func(r *route.Route) {
		runs[r.Run] = true
		run := l.runLoadOf(r.Run)
		run.isRemoved = false
		run.window.resize(l.elapsed(), r.Rules.Window)
		viewed := &viewedRun{route: r, load: run, isDirect: isDirect(r)}
		for _, t := range r.Ready {
			key := loadKey{r.Run, t.Replica}
			known[key] = true
			viewed.replicas = append(viewed.replicas, &readyReplica{route: r, target: t, load: l.loadOf(key), run: run, counts: run.counts})
		}
		v.runs[r.Run] = viewed
	})
	for key, load := range l.replicas {
		if known[key] {
			continue
		}
		if !load.isRemoved {
			load.isRemoved = true
			l.changed.Signal()
		}
		l.forgetReplica(load)
	}
	for id, run := range l.runs {
		if !runs[id] {
			run.isRemoved = true
			l.forgetRun(id, run)
		}
	}
	l.view.Store(v)
	return v
}

// loadOf returns the load of a replica in a new table, which is newer than what
// was seen of the replica's connections.
func (l *loadTracker) loadOf(key loadKey) *replicaLoad {
	load := l.replicas[key]
	if load == nil {
		load = &replicaLoad{loadKey: key}
		l.replicas[key] = load
	}
	load.isRemoved, load.penalizedUntil = false, time.Time{}
	return load
}

// runLoadOf returns the load of a run, which may have left the table just now.
func (l *loadTracker) runLoadOf(id dstack.RunID) *runLoad {
	if l.runs[id] == nil {
		l.runs[id] = &runLoad{isRemoved: true, window: newWindow(l.elapsed()), counts: &runCounts{}}
	}
	return l.runs[id]
}

func (l *loadTracker) forgetReplica(load *replicaLoad) {
	if load.isRemoved && load.inFlight == 0 {
		delete(l.replicas, load.loadKey)
	}
}

func (l *loadTracker) forgetRun(id dstack.RunID, run *runLoad) {
	if run.isRemoved && run.inFlight == 0 && run.held == 0 {
		delete(l.runs, id)
	}
}

// release ends a request at its replica.
func (l *loadTracker) release(r *readyReplica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run := r.run // which is not forgotten while a request is in flight
	run.inFlight--
	run.window.addBusy(l.elapsed(), -1)
	l.forgetRun(r.load.run, run)
	if r.load.inFlight--; r.load.isRemoved && r.load.inFlight == 0 {
		l.changed.Signal()
		l.forgetReplica(r.load)
	}
}

// penalize prefers other replicas to one that refused or broke a connection.
func (l *loadTracker) penalize(r *readyReplica, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.load.penalizedUntil = until
}

// countWaiting counts requests that begin to wait for a run, or cease to.
func (l *loadTracker) countWaiting(id dstack.RunID, by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run := l.runLoadOf(id)
	if run.held += by; run.held == by {
		l.changed.Signal()
	}
	run.window.addBusy(l.elapsed(), by)
	l.forgetRun(id, run)
}

// arrival is where a request is counted as demand.
type arrival struct {
	run    dstack.RunID
	second int64
}

// countArrival counts a request as demand for a run. A request that is counted at
// another run moves: it counts once.
func (l *loadTracker) countArrival(at *arrival, id dstack.RunID) {
	if at.run == id {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveArrival(at, id, l.runLoadOf(id), l.elapsed())
}

// moveArrival is countArrival. The caller holds the lock.
func (l *loadTracker) moveArrival(at *arrival, id dstack.RunID, run *runLoad, now time.Duration) {
	if at.run == id {
		return
	}
	if old := l.runs[at.run]; old != nil {
		old.window.retract(now, at.second)
	}
	*at = arrival{id, run.window.countArrival(now)}
}

// countLimited counts a request that was refused because its caller sent too many.
func (l *loadTracker) countLimited(id dstack.RunID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runLoadOf(id).limited++
}

// countsOf returns the counts of a run for Prometheus; nil: the run is not known.
func (l *loadTracker) countsOf(id dstack.RunID) *runCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	if run := l.runs[id]; run != nil {
		return run.counts
	}
	return nil
}

// snapshot returns the load of every run in the table, and of those that have
// left it and still have requests in flight. It leaves Held out.
func (l *loadTracker) snapshot() map[dstack.RunID]Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	loads := make(map[dstack.RunID]Load, len(l.runs))
	for id, run := range l.runs {
		loads[id] = Load{
			Accepted: run.accepted, Limited: run.limited, InFlight: run.inFlight, Replicas: map[dstack.ReplicaID]int{},
		}
	}
	for key, load := range l.replicas {
		loads[key.run].Replicas[key.replica] = load.inFlight
	}
	return loads
}

// loadReport returns all that is counted, with the version of the view that it
// was counted by. Runs without anything to report are left out.
func (l *loadTracker) loadReport() dstack.LoadReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := dstack.LoadReport{Runs: map[dstack.RunID]dstack.RunLoad{}}
	if v := l.view.Load(); v != nil {
		report.TableVersion, report.DrainSequence = v.Version, v.DrainSequence
	}
	now := l.elapsed()
	report.Watched = now
	for id, run := range l.runs {
		requests, busy, watched := run.window.totals(now)
		length := time.Duration(run.window.length) * time.Second
		isYoung := watched < min(length, now-time.Second) // it was counted for less time than others
		if requests > 0 || run.inFlight > 0 || run.held > 0 || busy > 0 || isYoung || run.accepted > 0 {
			report.Runs[id] = dstack.RunLoad{
				Window: length, Watched: watched, Requests: requests, Concurrency: busy,
				InFlight: run.inFlight, Held: run.held,
				Metrics: dstack.RunMetrics{Requests: run.accepted},
			}
		}
	}
	for key, load := range l.replicas {
		if load.inFlight == 0 {
			continue
		}
		run := report.Runs[key.run]
		if run.Replicas == nil {
			run.Replicas = map[dstack.ReplicaID]int{}
		}
		run.Replicas[key.replica] = load.inFlight
		report.Runs[key.run] = run
	}
	return report
}

// isDirect reports whether the relay can connect to each ready replica of a route: by an IP address, and not through a host.
func isDirect(r *route.Route) bool {
	return !slices.ContainsFunc(r.Ready, func(t route.Target) bool {
		_, err := netip.ParseAddrPort(t.Endpoint.Address)
		return t.Endpoint.Host != "" || err != nil
	})
}
