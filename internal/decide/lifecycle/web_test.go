package lifecycle_test

import (
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/autoscale"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// web is a gateway with its clients: the replicas in its route table, which may
// be older than the rows, and when the requests in flight to each end.
type web struct {
	table    map[dstack.ReplicaID]bool
	sequence int64 // the drain sequence of the table
	inFlight map[dstack.ReplicaID][]time.Time
	failed   int // requests that no process answered
	answered int
}

// serve simulates a tick of the gateway: it may receive the present table, some
// requests end, and one request arrives.
func (w *world) serve() {
	if !w.chance(3, "the table is late") {
		w.web.table, w.web.sequence = w.routes(), w.drainSequence
	}
	for id, requests := range w.web.inFlight {
		var left []time.Time
		for _, ends := range requests {
			if w.now.Before(ends) {
				left = append(left, ends)
			}
		}
		if w.web.inFlight[id] = left; len(left) == 0 {
			delete(w.web.inFlight, id)
		}
	}
	if len(w.web.table) == 0 {
		return // it is held
	}
	id := rapid.SampledFrom(sorted(w.web.table)).Draw(w.t, "goes to")
	var p *proc
	m := w.machine(w.replicas[id].Instance)
	if m != nil {
		p = m.engine[w.replicas[id].Attempt]
	}
	isCut := m != nil && m.offer.IsRemote && w.now.Before(m.silentUntil)
	if p == nil || p.ended || p.stopping && !p.isDeleted || w.now.Before(p.readyAt) || isCut {
		w.web.failed++
		return
	}
	w.web.answered++
	w.web.inFlight[id] = append(w.web.inFlight[id], w.after(20, "takes"))
}

// routes returns the targets in the route table of the present rows.
func (w *world) routes() map[dstack.ReplicaID]bool {
	facts := route.Facts{Status: w.run.Status, Reason: w.run.Reason}
	for _, r := range w.mine() {
		if r.Status.IsFinished() {
			continue
		}
		i := w.instances[r.Instance]
		replica := route.ReplicaFacts{ID: r.ID, IsAway: i != nil && (i.Status == dstack.InstanceAway || i.Status == dstack.InstanceDeleting), Num: r.Num, Status: r.Status, Reason: r.Reason}
		if rep, ok := w.reports[r.Attempt]; ok {
			replica.Report = &rep
		}
		facts.Replicas = append(facts.Replicas, replica)
	}
	targets := map[dstack.ReplicaID]bool{}
	for _, t := range (route.Route{}).WithTargets(facts).Ready {
		targets[t.Replica] = true
	}
	return targets
}

// load sums the report of the gateway, which is always recent.
func (g web) load(w *world) dstack.Load {
	counts := dstack.RunLoad{Replicas: map[dstack.ReplicaID]int{}}
	for id, requests := range g.inFlight {
		counts.Replicas[id] = len(requests)
	}
	facts := autoscale.LoadFacts{
		Gateways: []autoscale.GatewayReport{{Gateway: "web", DrainSequence: g.sequence, At: w.now}},
		Counts:   map[string]dstack.RunLoad{"web": counts},
		Draining: map[dstack.ReplicaID]int64{},
	}
	for _, r := range w.mine() {
		if r.Status == dstack.ReplicaDraining {
			facts.Draining[r.ID] = w.draining[r.ID]
		}
	}
	return autoscale.SumReports(facts, w.now)
}
