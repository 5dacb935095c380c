package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// endpoints are those of the replicas of routeTo.
func endpoints(names ...string) (all []dstack.Endpoint) {
	for _, name := range names {
		all = append(all, dstack.Endpoint{Address: name})
	}
	return all
}

// routeTo returns a route whose replicas have their names as addresses.
func routeTo(names ...string) route.Route {
	r := route.Route{Run: "run", Project: "main", Name: "llama"}
	for i, name := range names {
		r.Ready = append(r.Ready, route.Target{Replica: dstack.ReplicaID(name), Num: i, Endpoint: dstack.Endpoint{Address: name}})
	}
	return r
}

func TestPick(t *testing.T) {
	l := newLoadTracker()
	v := l.applyTable(route.NewIndex(route.Table{Routes: []route.Route{routeTo("a", "b", "c")}}))
	routes := []*route.Route{v.Run(route.Destination{Project: "main", Run: "llama"})}
	pick := func(excluded ...string) *readyReplica { return l.pickReplica(v, routes, endpoints(excluded...), false) }

	turn := pick().target.Address + pick().target.Address + pick().target.Address
	if turn != "abc" {
		t.Errorf("equals are not taken in turn: %s", turn)
	}
	for _, p := range v.runs["run"].replicas {
		l.release(p)
	}
	if a := pick(); a.target.Address != "a" {
		t.Errorf("next turn: %s", a.target.Address)
	}
	if p := pick("b", "c"); p.target.Address != "a" {
		t.Errorf("with two excluded: %s", p.target.Address)
	}
	for range 4 { // a has two requests
		if p := pick(); p.target.Address == "a" {
			t.Error("not the one with the fewest")
		}
	}
	if p := pick("a", "b", "c"); p != nil {
		t.Errorf("with all excluded: %s", p.target.Address)
	}
	if got := l.snapshot()["run"]; got.InFlight != 6 || got.Accepted != 9 || got.Replicas["a"] != 2 {
		t.Errorf("snapshot %+v", got)
	}
}

func TestPick_PenalizedReplicasComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoadTracker()
		index := route.NewIndex(route.Table{Routes: []route.Route{routeTo("a", "b")}})
		v := l.applyTable(index)
		routes := []*route.Route{v.Run(route.Destination{Project: "main", Run: "llama"})}
		a := l.pickReplica(v, routes, endpoints("b"), false)
		l.penalize(a, time.Now().Add(penaltyTime))
		l.release(a)
		for range 3 {
			if p := l.pickReplica(v, routes, nil, false); p.target.Address != "b" {
				t.Errorf("picked %s", p.target.Address)
			}
		}
		if p := l.pickReplica(v, routes, endpoints("b"), false); p != a {
			t.Error("the last choice is none at all")
		}
		time.Sleep(penaltyTime + time.Millisecond)
		if p := l.pickReplica(v, routes, nil, false); p.target.Address != "a" {
			t.Errorf("after a while: %s", p.target.Address)
		}
		l.penalize(a, time.Now().Add(penaltyTime))
		v = l.applyTable(index)
		if p := l.pickReplica(v, routes, nil, false); p.target.Address != "a" {
			t.Errorf("after a new table: %s", p.target.Address)
		}
	})
}

// A run in panic mode gets no request while another run has a ready replica,
// however busy that is.
func TestPick_PanicComesLast(t *testing.T) {
	sick, well := routeTo("a"), routeTo("b")
	sick.Run, sick.Name, sick.PanicMode = "sick", "sick", true
	l := newLoadTracker()
	v := l.applyTable(route.NewIndex(route.Table{Routes: []route.Route{sick, well}}))
	routes := []*route.Route{v.Run(route.Destination{Project: "main", Run: "sick"}), v.Run(route.Destination{Project: "main", Run: "llama"})}
	for range 5 {
		if p := l.pickReplica(v, routes, nil, false); p.target.Address != "b" {
			t.Errorf("picked %s", p.target.Address)
		}
	}
	b := l.pickReplica(v, routes, endpoints("a"), false)
	l.penalize(b, time.Now().Add(penaltyTime))
	if p := l.pickReplica(v, routes, nil, false); p != b {
		t.Error("a penalized replica is not preferred to one in panic mode")
	}
	if p := l.pickReplica(v, routes, endpoints("b"), false); p == nil || p.target.Address != "a" {
		t.Errorf("the last choice is none at all: %v", p)
	}
}

func TestLoadTracker_OutlivesTables(t *testing.T) {
	l := newLoadTracker()
	v := l.applyTable(route.NewIndex(route.Table{Routes: []route.Route{routeTo("a", "b")}}))
	busy := l.pickReplica(v, []*route.Route{v.Run(route.Destination{Project: "main", Run: "llama"})}, nil, false)
	l.applyTable(route.NewIndex(route.Table{Routes: []route.Route{routeTo("b")}}))
	if got := l.snapshot()["run"]; got.InFlight != 1 || got.Accepted != 1 || len(got.Replicas) != 2 {
		t.Errorf("while it answers: %+v", got)
	}
	l.release(busy)
	l.applyTable(route.NewIndex(route.Table{}))
	if got := l.snapshot(); len(got) != 0 || len(l.replicas) != 0 {
		t.Errorf("after all: %+v, %v", got, l.replicas)
	}
}
