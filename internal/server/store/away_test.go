package store_test

import (
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// A remote machine that goes away makes its replicas and their runs due. They see it, no
// route leads there, and nothing is placed there. When it is back and drains, they see that.
func TestInstanceStep_AwayAndDraining(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		step := placed(dstack.Claim{})
		step.Placement.Offer.IsRemote = true
		h.replicaStep(r.ID, step, t0)
		_, r = h.reread(run.ID)
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0}, h.mergeReports(running(r.Attempt, "10.0.0.1:80")), nil, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaUnhealthy}, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Ready: true}, t0)
		if routes := h.routes().Routes; len(routes) != 1 || len(routes[0].Ready) != 1 || !routes[0].PanicMode {
			t.Fatalf("routes %+v", routes)
		}

		save := func(step lifecycle.InstanceStep, drains bool, now time.Time) {
			t.Helper()
			h.noError(h.s.MarkDue(h.ctx(), store.Instances, "local-box", now))
			l := h.claim(store.Instances, "local-box", now)
			seen, err := h.s.InstanceFacts(h.ctx(), "local-box")
			h.noError(err)
			seen.Machine = &dstack.Machine{IsDraining: drains}
			_, err = h.s.SaveInstanceStep(h.ctx(), l, seen, step, nil, nil, now)
			h.noError(err)
		}
		wantDue := func(what string, now time.Time) {
			t.Helper()
			if !h.isDue(store.Runs, string(run.ID), now) {
				t.Errorf("%s: the run is not due", what)
			}
		}
		save(lifecycle.InstanceStep{To: dstack.InstanceAway, Reason: "silent", Due: t0.Add(sec(1))}, false, t0.Add(sec(1)))
		wantDue("away", t0.Add(sec(1)))
		if !h.isDue(store.Replicas, string(r.ID), t0.Add(sec(1))) {
			t.Error("the replica is not due")
		}
		away, err := h.s.AwayInstances(h.ctx())
		h.noError(err)
		seen, err := h.s.RunFacts(h.ctx(), run.ID)
		h.noError(err)
		if away["local-box"] != "silent" || seen.Instances["local-box"].Status != dstack.InstanceAway {
			t.Errorf("away: %v, the run sees %+v", away, seen.Instances)
		}
		if routes := h.routes().Routes; len(routes[0].Ready) != 0 {
			t.Errorf("routes lead to a machine that is away: %+v", routes)
		}

		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive}, t0.Add(sec(100)))
		save(lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0.Add(sec(101))}, true, t0.Add(sec(101)))
		wantDue("back and draining", t0.Add(sec(101)))
		seen, err = h.s.RunFacts(h.ctx(), run.ID)
		h.noError(err)
		if away, err = h.s.AwayInstances(h.ctx()); err != nil || len(away) > 0 || !seen.Instances["local-box"].IsDraining {
			t.Errorf("away: %v, %v, the run sees %+v", away, err, seen.Instances)
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1}, t0.Add(sec(200)))
		save(lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0.Add(sec(201))}, false, t0.Add(sec(201)))
		wantDue("not draining any more", t0.Add(sec(201)))
		if seen, err = h.s.RunFacts(h.ctx(), run.ID); err != nil || len(seen.Instances) > 0 {
			t.Errorf("the run sees %+v, %v", seen.Instances, err)
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive}, t0.Add(sec(300)))
		if seen, err = h.s.RunFacts(h.ctx(), run.ID); err != nil || seen.Instances["local-box"].Status != dstack.InstanceUp {
			t.Errorf("a run with more replicas than desired sees %+v, %v", seen.Instances, err)
		}
	})
}
