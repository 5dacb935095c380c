package store_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestRoutes_HaveTheRulesOfTheConfiguration(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		rs := ranged("web", 0, 2)
		rs.Configuration.RateLimits = []spec.RateLimit{{Prefix: "/v1/", Key: spec.RateLimitKey{Type: "header", Header: "X-User"}, RPS: 0.5, Burst: 3}}
		rs.Configuration.Hold = &spec.Hold{Requests: 7, Timeout: 60}
		run := h.submitted(rs, t0)
		want := route.Rules{Window: sec(30), Limits: rs.Configuration.RateLimits, Hold: spec.Hold{Requests: 7, Timeout: 60}}
		if diff := cmp.Diff(want, h.routes().Routes[0].Rules); diff != "" {
			t.Error(diff)
		}
		if once, again := h.routes(), h.routes(); &once.Routes[0].Rules.Limits[0] != &again.Routes[0].Rules.Limits[0] {
			t.Error("the same rules are read again")
		}
		h.revise(run.ID, "without", false, t0)
		if diff := cmp.Diff(route.Rules{}, h.routes().Routes[0].Rules); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRoutes_SleepingOrWithoutReplicas(t *testing.T) {
	for _, c := range []struct {
		name        string
		least, most int
		step        lifecycle.RunStep
		asleep      bool
		state       string
	}{
		{"a range down to zero", 0, 2, lifecycle.RunStep{To: dstack.RunActive}, true, "asleep"},
		{"one is wanted", 0, 2, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1}, false, "active"},
		{"one is there", 0, 2, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0)}, false, "waiting"},
		{"it ends", 0, 2, lifecycle.RunStep{To: dstack.RunTerminating, Reason: "stopped by its user"}, false, "terminating: stopped by its user"},
		{"replicas: 0", 0, 0, lifecycle.RunStep{To: dstack.RunActive}, false, "replicas: 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, h *fixture) {
				run := h.submitted(ranged("web", c.least, c.most), t0)
				if h.routes().Routes[0].IsSleeping {
					t.Error("it sleeps before it has begun")
				}
				h.runStep(run.ID, c.step, t0)
				r := h.routes().Routes[0]
				if r.IsSleeping != c.asleep || !strings.Contains(string(r.State), c.state) || r.IsStopping != (c.step.To == dstack.RunTerminating) || len(r.Ready) > 0 {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

func TestRoutes_WhileAReplicaFailsDrainsAndEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(ranged("web", 0, 2), t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Add: newNums(0), Due: t0}, t0)
		_, r := h.reread(run.ID)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		_, r = h.reread(run.ID)
		hears := func(change func(*dstack.Report)) {
			rep := running(r.Attempt, "127.0.0.1:4321")
			rep.Probes = &dstack.ProbeStatus{Ready: true}
			change(&rep)
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0},
				h.mergeReports(rep), nil, t0)
		}
		becomes := func(to dstack.ReplicaStatus) {
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: to, Due: t0}, t0)
		}
		failing := func(rep *dstack.Report) { rep.Probes = &dstack.ProbeStatus{Message: "GET / answered 500"} }
		drain := lifecycle.RunStep{To: dstack.RunActive, Drain: []dstack.ReplicaID{r.ID}, DrainTimeout: sec(1)}
		for _, c := range []struct {
			name          string
			do            func()
			answers       bool
			panic, asleep bool
			state         string
		}{
			{"starting", func() { hears(func(*dstack.Report) {}) }, false, false, false, "starting"},
			{"ready", func() { becomes(dstack.ReplicaReady) }, true, false, false, ""},
			{"its probes fail", func() { hears(failing) }, true, false, false, ""},
			{"unhealthy", func() { becomes(dstack.ReplicaUnhealthy) }, true, true, false, ""},
			{"its port is closed", func() { hears(func(rep *dstack.Report) { rep.Ready = false }) }, false, false, false, "unhealthy"},
			{"open, and failing again", func() { hears(failing) }, true, true, false, ""},
			{"well", func() { becomes(dstack.ReplicaReady) }, true, false, false, ""},
			{"draining", func() { h.runStep(run.ID, drain, t0) }, false, false, true, "asleep"},
			{"terminating", func() { becomes(dstack.ReplicaTerminating) }, false, false, true, "asleep"},
			{"gone", func() { becomes(dstack.ReplicaTerminated) }, false, false, true, "asleep"},
			{"to be stopped", func() { h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopGraceful, "ann", t0)) }, false, false, false, "active"},
		} {
			c.do()
			got := h.routes().Routes[0]
			if (len(got.Ready) == 1) != c.answers || got.PanicMode != c.panic || got.IsSleeping != c.asleep || !strings.HasPrefix(string(got.State), c.state) || (got.State == "") != c.answers {
				t.Errorf("%s: got %+v", c.name, got)
			}
			if got.IsStopping != (c.name == "to be stopped") {
				t.Errorf("%s: ends %v", c.name, got.IsStopping)
			}
		}
	})
}
