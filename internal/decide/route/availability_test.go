package route_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// replica is a replica of a status whose attempt runs and accepts connections.
func replica(num int, status dstack.ReplicaStatus, reason dstack.Reason) route.ReplicaFacts {
	return route.ReplicaFacts{
		ID: dstack.ReplicaID(fmt.Sprint("r", num)), Num: num, Status: status, Reason: reason,
		Report: &dstack.Report{State: dstack.AttemptRunning, Ready: true, Endpoint: dstack.Endpoint{Address: "10.0.0.1:80"}},
	}
}

func target(num int) route.Target {
	return route.Target{Replica: dstack.ReplicaID(fmt.Sprint("r", num)), Num: num, Endpoint: dstack.Endpoint{Address: "10.0.0.1:80"}}
}

func TestRoute_WithTargets(t *testing.T) {
	away := replica(0, dstack.ReplicaUnhealthy, "host a has not answered for 10s")
	away.IsAway = true
	unreported, closed, exited := replica(0, dstack.ReplicaReady, ""), replica(0, dstack.ReplicaReady, ""), replica(0, dstack.ReplicaReady, "")
	unreported.Report = nil
	closed.Report.Ready = false
	exited.Report.State = dstack.AttemptExited
	many := make([]route.ReplicaFacts, 12)
	for i := range many {
		many[i] = replica(i, dstack.ReplicaWaiting, dstack.Reason(fmt.Sprint(i)))
	}
	tests := []struct {
		name  string
		facts route.Facts
		want  route.Route
	}{
		{"unhealthy replicas do not serve beside ready ones",
			route.Facts{Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaUnhealthy, ""), replica(1, dstack.ReplicaReady, "")}},
			route.Route{Ready: []route.Target{target(1)}}},
		{"unhealthy replicas serve where none is ready",
			route.Facts{Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaUnhealthy, ""), replica(1, dstack.ReplicaStarting, "")}},
			route.Route{Ready: []route.Target{target(0)}, PanicMode: true}},
		{"a replica whose machine is away does not serve, also where none is ready", route.Facts{Replicas: []route.ReplicaFacts{away}},
			route.Route{State: "unhealthy: host a has not answered for 10s"}},
		{"a replica that drains does not serve",
			route.Facts{Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaDraining, "replaced")}},
			route.Route{State: "draining: replaced"}},
		{"no report", route.Facts{Replicas: []route.ReplicaFacts{unreported}}, route.Route{State: "ready"}},
		{"its port is closed", route.Facts{Replicas: []route.ReplicaFacts{closed}}, route.Route{State: "ready"}},
		{"it does not run", route.Facts{Replicas: []route.ReplicaFacts{exited}}, route.Route{State: "ready"}},
		{"a run that stops still serves",
			route.Facts{IsStopping: true, Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaReady, "")}},
			route.Route{IsStopping: true, Ready: []route.Target{target(0)}}},
		{"a run that stops",
			route.Facts{Status: dstack.RunTerminating, Reason: "stopped by its user", IsStopping: true,
				Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaTerminating, "")}},
			route.Route{IsStopping: true, State: "terminating: stopped by its user"}},
		{"a run that sleeps", route.Facts{IsSleeping: true, Replicas: []route.ReplicaFacts{replica(0, dstack.ReplicaTerminating, "")}},
			route.Route{IsSleeping: true, State: "asleep: it had no recent requests; the next request starts a replica"}},
		{"a run that is disabled", route.Facts{IsDisabled: true},
			route.Route{NeverServes: true, State: "it has no replicas: its configuration says replicas: 0"}},
		{"a run without replicas", route.Facts{Status: dstack.RunSubmitted}, route.Route{State: "submitted"}},
		{"equal reasons are told once",
			route.Facts{Replicas: []route.ReplicaFacts{
				replica(0, dstack.ReplicaWaiting, "full"), replica(1, dstack.ReplicaWaiting, "full"), replica(2, dstack.ReplicaStarting, "")}},
			route.Route{State: "waiting: full, starting"}},
		{"many reasons", route.Facts{Replicas: many}, route.Route{State: "waiting: 0, waiting: 1, waiting: 2, waiting: 3, " +
			"waiting: 4, waiting: 5, waiting: 6, waiting: 7, waiting: 8, waiting: 9 and 2 more"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := route.Route{State: "old", PanicMode: true}.WithTargets(test.facts)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
