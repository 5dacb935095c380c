package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestReplica_ProbesAndDraining(t *testing.T) {
	type F = *lifecycle.ReplicaFacts
	probed := func(p *dstack.ProbeStatus) func(F) {
		return func(f F) {
			f.Run.Spec.Configuration.Probes = []spec.Probe{{Type: "http"}}
			f.Run.ReadyAt = now
			f.Report = &dstack.Report{State: dstack.AttemptRunning, Ready: true, Probes: p, StartedAt: now}
		}
	}
	fails := func(n int) *dstack.ProbeStatus {
		return &dstack.ProbeStatus{ConsecutiveFailures: n, Message: "GET /health answered 500"}
	}
	beside := func(change func(F), siblings ...dstack.Replica) func(F) {
		return func(f F) { change(f); f.Siblings = siblings }
	}
	since := func(d time.Duration, change func(F)) func(F) {
		return func(f F) { change(f); f.Replica.Since = now.Add(-d) }
	}
	drains := func(left time.Duration, load dstack.Load) func(F) {
		return func(f F) {
			f.Replica.DrainDeadline, f.Load, f.Replica.Reason = now.Add(left), load, "scaled down"
			f.Report = &dstack.Report{State: dstack.AttemptRunning, Ready: true}
		}
	}
	serves := func(p *dstack.ProbeStatus) func(F) { // a model, without probes
		return func(f F) {
			probed(p)(f)
			f.Run.Spec.Configuration.Probes, f.Run.Spec.Configuration.Model = nil, &spec.Model{Format: "openai", Prefix: "/v1"}
		}
	}
	loading := &dstack.ProbeStatus{Message: "its model is not loaded yet: GET /health answered 503"}
	ready, unhealthy := dstack.ReplicaReady, dstack.ReplicaUnhealthy
	for _, c := range []struct {
		name   string
		seen   lifecycle.ReplicaFacts
		to     dstack.ReplicaStatus
		reason string
	}{
		{"is not ready before its probes are", facts(dstack.ReplicaStarting, probed(nil)), dstack.ReplicaStarting, "probes were not answered yet"},
		{"shows their message", facts(dstack.ReplicaStarting, probed(fails(0))), dstack.ReplicaStarting, "GET /health answered 500"},
		{"is ready when they are", facts(dstack.ReplicaStarting, probed(&dstack.ProbeStatus{Ready: true})), ready, ""},
		{"is not ready before its server was asked for its model", facts(dstack.ReplicaStarting, serves(nil)), dstack.ReplicaStarting, "running; its server was not asked for its model yet"},
		{"is not ready while its model loads", facts(dstack.ReplicaStarting, serves(loading)), dstack.ReplicaStarting, "running; its model is not loaded yet: GET /health answered 503"},
		{"fails when its model does not load", facts(dstack.ReplicaStarting, func(f F) {
			serves(loading)(f)
			f.Report.StartedAt, f.Replica.Since = now.Add(-time.Hour), now.Add(-time.Hour)
		}), dstack.ReplicaRestarting, "its model was not loaded within"},
		{"is ready when its model is loaded", facts(dstack.ReplicaStarting, serves(&dstack.ProbeStatus{Ready: true})), ready, ""},
		{"stays ready without another check", facts(ready, serves(nil)), ready, ""},
		{"stays ready though a late check fails", facts(ready, serves(loading)), ready, ""},
		{"is asked again once its port was closed", facts(unhealthy, serves(nil)), unhealthy, "not asked"},
		{"is not ready again before its model is loaded", facts(unhealthy, serves(loading)), unhealthy, "not loaded"},
		{"is restarted when its model does not come back", facts(unhealthy, since(time.Hour, serves(loading))), dstack.ReplicaRestarting, "answered 503 for"},
		{"is ready again", facts(unhealthy, serves(&dstack.ProbeStatus{Ready: true})), ready, ""},
		{"becomes unhealthy with the first failed probe", facts(ready, probed(fails(1))), unhealthy, "answered 500"},
		{"becomes ready again", facts(unhealthy, probed(&dstack.ProbeStatus{Ready: true})), ready, ""},
		{"is not restarted for a few failures", facts(unhealthy, beside(probed(fails(2)), rep(1, 2, ready))), unhealthy, ""},
		{"is restarted after three failures while another serves", facts(unhealthy, beside(probed(fails(3)), rep(1, 2, ready))), dstack.ReplicaRestarting, "3 times in a row"},
		{"not while another replica restarts", facts(unhealthy, beside(probed(fails(3)), rep(1, 2, ready), rep(2, 2, dstack.ReplicaRestarting))), unhealthy, ""},
		{"the lowest number first", facts(unhealthy, beside(func(f F) { probed(fails(3))(f); f.Replica.Num = 2 }, rep(1, 2, unhealthy), rep(3, 2, ready))), unhealthy, ""},
		{"not soon when all replicas fail", facts(unhealthy, since(time.Minute, probed(fails(3)))), unhealthy, ""},
		{"but after a while", facts(unhealthy, since(3*time.Minute, probed(fails(3)))), dstack.ReplicaRestarting, ""},
		{"restarts at once when it exits", facts(unhealthy, func(f F) { f.Run.ReadyAt = now; f.Report = &dstack.Report{State: dstack.AttemptExited} }), dstack.ReplicaRestarting, "exited"},
		{"waits while its engine is silent", facts(unhealthy, nil), unhealthy, ""},

		{"drains while requests are in flight", facts(dstack.ReplicaDraining, drains(time.Second, dstack.Load{Known: true, Replicas: map[dstack.ReplicaID]int{"a-2": 3}})), dstack.ReplicaDraining, "scaled down"},
		{"and while no gateway has reported that there are none", facts(dstack.ReplicaDraining, drains(time.Second, dstack.Load{})), dstack.ReplicaDraining, ""},
		{"terminates once it has drained", facts(dstack.ReplicaDraining, drains(time.Second, dstack.Load{Drained: map[dstack.ReplicaID]bool{"a-2": true}})), dstack.ReplicaTerminating, "scaled down"},
		{"terminates at its deadline", facts(dstack.ReplicaDraining, drains(0, dstack.Load{Replicas: map[dstack.ReplicaID]int{"a-2": 3}})), dstack.ReplicaTerminating, "3 requests in flight were not waited for"},
		{"or the clock was set back", facts(dstack.ReplicaDraining, drains(9*time.Hour, dstack.Load{})), dstack.ReplicaTerminating, ""},
		{"or its attempt has ended", facts(dstack.ReplicaDraining, func(f F) {
			f.Replica.DrainDeadline, f.Report = now.Add(time.Minute), &dstack.Report{State: dstack.AttemptExited}
		}), dstack.ReplicaTerminating, ""},

		{"waits until an older replica has stopped", facts(dstack.ReplicaWaiting, func(f F) { f.Blocked = true; f.Replica.Since = now.Add(-time.Hour) }), dstack.ReplicaWaiting, "older replica"},
		{"an update fails after three crashes though it may retry", facts(dstack.ReplicaStarting, func(f F) {
			always := true
			f.Run.Spec.Configuration.Retry, f.Run.StableRevision = &spec.Retry{Always: &always}, 1
			f.Replica.Crashes, f.Replica.FirstCrashAt = 2, now.Add(-time.Second)
			f.Report = &dstack.Report{State: dstack.AttemptExited}
		}), dstack.ReplicaFailed, ""},
		{"a replica of the stable revision never fails", facts(dstack.ReplicaStarting, func(f F) {
			f.Run.TemplateRevision, f.Run.StableRevision, f.Replica.Crashes = 3, 2, 50
			f.Report = &dstack.Report{State: dstack.AttemptExited}
		}), dstack.ReplicaRestarting, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, err := lifecycle.DecideReplica(c.seen, now)
			if err != nil {
				t.Fatal(err)
			}
			if step.To != c.to || !strings.Contains(string(step.Reason), c.reason) || step.Blocked != c.seen.Blocked {
				t.Errorf("got %+v", step)
			}
			if step.Due.Sub(now) > time.Minute {
				t.Errorf("looks again in %s only", step.Due.Sub(now))
			}
			events := lifecycle.BuildReplicaEvents(c.seen, step, now)
			if changed := step.To != c.seen.Replica.Status; changed != (len(events) == 1) {
				t.Errorf("events: %+v", events)
			}
		})
	}
}

// Draining and unhealthy replicas continue to run.
func TestPlanEngineCommands_KeepsDrainingReplicas(t *testing.T) {
	reports := []dstack.Report{{Attempt: "try", State: dstack.AttemptRunning}}
	for _, status := range []dstack.ReplicaStatus{dstack.ReplicaDraining, dstack.ReplicaUnhealthy} {
		placed := []lifecycle.PlacedReplica{{Replica: rep(0, 2, status)}}
		if commands := lifecycle.PlanEngineCommands(dstack.Instance{}, placed, reports); len(commands) > 0 {
			t.Errorf("%s: commands %+v", status, commands)
		}
	}
	lost := []lifecycle.PlacedReplica{{Replica: rep(0, 2, dstack.ReplicaUnhealthy)}}
	if commands := lifecycle.PlanEngineCommands(dstack.Instance{}, lost, nil); len(commands) > 0 {
		t.Errorf("a lost attempt of an unhealthy replica is started again: %+v", commands)
	}
}

// A replica whose machine is gone can get an order to drain that was decided
// before. Nothing else makes it due then.
func TestReplica_DrainsWithoutMachine(t *testing.T) {
	seen := facts(dstack.ReplicaDraining, func(f *lifecycle.ReplicaFacts) {
		f.Replica.Instance, f.Instance, f.Report = "", nil, nil
		f.Replica.DrainDeadline = now.Add(time.Minute)
	})
	step, err := lifecycle.DecideReplica(seen, now)
	if err != nil || step.To != dstack.ReplicaTerminating || !step.Due.Equal(now) {
		t.Fatalf("it moves to %s and is due at %s (%v)", step.To, step.Due, err)
	}
	seen.Replica = step.Apply(seen.Replica, lifecycle.NewIDs{}, now)
	if step, err = lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaTerminated {
		t.Errorf("then it moves to %s (%v)", step.To, err)
	}
}

// A replica is not given up for what its engine said last before it fell silent, e.g. because the API server of its cluster or
// the server itself was away: it may have become ready since.
func TestDecideReplica_OldReports(t *testing.T) {
	closed := dstack.Report{State: dstack.AttemptRunning, StartedAt: now.Add(-2 * time.Minute)}
	fails := dstack.Report{State: dstack.AttemptRunning, Ready: true, Probes: &dstack.ProbeStatus{ConsecutiveFailures: 3, Message: "answered 500"}}
	for _, c := range []struct {
		name     string
		status   dstack.ReplicaStatus
		report   dstack.Report
		answered time.Duration // how long ago
		to       dstack.ReplicaStatus
	}{
		{"its port was closed a minute after the start", dstack.ReplicaStarting, closed, time.Minute, dstack.ReplicaFailed},
		{"its engine fell silent before", dstack.ReplicaStarting, closed, time.Minute + time.Second, dstack.ReplicaStarting},
		{"its port was closed for a minute", dstack.ReplicaUnhealthy, closed, time.Minute, dstack.ReplicaRestarting},
		{"it may be open again", dstack.ReplicaUnhealthy, closed, time.Minute + time.Second, dstack.ReplicaUnhealthy},
		{"its probes failed for two minutes", dstack.ReplicaUnhealthy, fails, 0, dstack.ReplicaRestarting},
		{"its probes may succeed again", dstack.ReplicaUnhealthy, fails, time.Second, dstack.ReplicaUnhealthy},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := *up
			i.LastResponseAt = now.Add(-c.answered)
			seen := facts(c.status, func(f *lifecycle.ReplicaFacts) {
				f.Instance, f.Report, f.Limits.StartTimeout = &i, &c.report, time.Minute
			})
			seen.Replica.Since = now.Add(-2 * time.Minute)
			seen.Run.Spec.Configuration.Probes = []spec.Probe{{Type: "http"}}
			step, err := lifecycle.DecideReplica(seen, now)
			if err != nil || step.To != c.to {
				t.Errorf("got %+v, %v", step, err)
			}
			if wait := step.Due.Sub(now); step.To == dstack.ReplicaStarting && (wait <= 0 || wait > time.Second) {
				t.Errorf("looks again in %s", wait)
			}
		})
	}
}
