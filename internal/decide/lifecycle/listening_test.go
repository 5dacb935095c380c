package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// A running replica whose port stays closed says where it listens instead.
func TestReplica_ExplainsClosedPort(t *testing.T) {
	type L = dstack.Listener
	for _, c := range []struct {
		name        string
		inContainer bool
		chosen      int
		listening   []L
		want        string
	}{
		{"nothing is known", true, 0, nil, "running; port 8000 does not accept connections yet"},
		{"another port", false, 0, []L{{Host: "127.0.0.1", Port: 18091}}, "running; it listens on 18091, not on 8000"},
		{"another port in a container", true, 0, []L{{Host: "0.0.0.0", Port: 18091}}, "running; it listens on 18091, not on 8000"},
		{"the same port on two addresses", true, 0, []L{{Host: "0.0.0.0", Port: 81}, {Host: "::", Port: 81}}, "running; it listens on 81, not on 8000"},
		{"two ports", true, 0, []L{{Host: "0.0.0.0", Port: 81}, {Host: "::", Port: 82}}, "running; it listens on 81 and 82, not on 8000"},
		{"many ports", true, 0, []L{{Host: "::", Port: 81}, {Host: "::", Port: 82}, {Host: "::", Port: 83}, {Host: "::", Port: 84}}, "running; it listens on 81, 82, 83 and others, not on 8000"},
		{"only 127.0.0.1 in a container", true, 0, []L{{Host: "127.0.0.1", Port: 8000}},
			"running; it listens only on 127.0.0.1 inside the container, not on all addresses: start it with --host 0.0.0.0"},
		{"only ::1 in a container, and another port", true, 0, []L{{Host: "::1", Port: 8000}, {Host: "0.0.0.0", Port: 9000}},
			"running; it listens only on ::1 inside the container, not on all addresses: start it with --host 0.0.0.0"},
		{"127.0.0.1 without a container is right", false, 0, []L{{Host: "127.0.0.1", Port: 8000}}, "running; port 8000 does not accept connections yet"},
		{"all addresses are right", true, 0, []L{{Host: "0.0.0.0", Port: 8000}}, "running; port 8000 does not accept connections yet"},
		{"another address of the machine", false, 0, []L{{Host: "10.0.0.2", Port: 8000}},
			"running; it listens on 10.0.0.2, not on 127.0.0.1: start it with --host 127.0.0.1"},
		{"not on the port that its engine chose", false, 20001, []L{{Host: "127.0.0.1", Port: 8000}}, "running; it listens on 8000, not on 20001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := &dstack.Report{State: dstack.AttemptRunning, StartedAt: now.Add(-30 * time.Second), Listening: c.listening, Port: c.chosen}
			seen := facts(dstack.ReplicaStarting, func(f *lifecycle.ReplicaFacts) { f.Report = rep; f.Instance = instanceWith(c.inContainer) })
			step, err := lifecycle.DecideReplica(seen, now)
			if err != nil || step.To != dstack.ReplicaStarting || string(step.Reason) != c.want {
				t.Errorf("got %s %q, %v", step.To, step.Reason, err)
			}
		})
	}
}

func instanceWith(containers bool) *dstack.Instance {
	i := *up
	i.Offer.Engine.Containers = containers
	return &i
}

// The reason of the failure says it, too.
func TestReplica_FailsWithWhereItListened(t *testing.T) {
	rep := &dstack.Report{State: dstack.AttemptRunning, StartedAt: now.Add(-time.Hour), Listening: []dstack.Listener{{Host: "0.0.0.0", Port: 18091}}}
	step, err := lifecycle.DecideReplica(facts(dstack.ReplicaStarting, func(f *lifecycle.ReplicaFacts) {
		f.Report, f.Replica.Since, f.Limits.StartTimeout = rep, now.Add(-time.Hour), 20*time.Second
	}), now)
	if err != nil || step.To != dstack.ReplicaFailed || step.Reason != "port 8000 did not open within 20s: it listens on 18091, not on 8000" {
		t.Errorf("got %s %q, %v", step.To, step.Reason, err)
	}
}

// A ready process that listens for other machines has a warning, and loses it once it
// no longer does. A container has none.
func TestReplica_WarnsOfOpenListeners(t *testing.T) {
	type L = dstack.Listener
	for _, c := range []struct {
		name        string
		status      dstack.ReplicaStatus
		inContainer bool
		listening   []L
		want        string
	}{
		{"becomes ready", dstack.ReplicaStarting, false, []L{{Host: "0.0.0.0", Port: 8000}}, "listens on 0.0.0.0:8000, open to the network without a token"},
		{"stays ready", dstack.ReplicaReady, false, []L{{Host: "::", Port: 8000}}, "listens on [::]:8000, open"},
		{"recovers", dstack.ReplicaUnhealthy, false, []L{{Host: "10.0.0.2", Port: 9000}, {Host: "127.0.0.1", Port: 8000}}, "listens on 10.0.0.2:9000, open"},
		{"listens locally", dstack.ReplicaReady, false, []L{{Host: "127.0.0.1", Port: 8000}, {Host: "::1", Port: 8000}}, ""},
		{"listens nowhere as far as known", dstack.ReplicaReady, false, nil, ""},
		{"is a container", dstack.ReplicaStarting, true, []L{{Host: "0.0.0.0", Port: 8000}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := &dstack.Report{State: dstack.AttemptRunning, Ready: true, Listening: c.listening}
			step, err := lifecycle.DecideReplica(facts(c.status, func(f *lifecycle.ReplicaFacts) {
				f.Report, f.Instance, f.Replica.Reason = rep, instanceWith(c.inContainer), "an earlier reason"
			}), now)
			if err != nil || step.To != dstack.ReplicaReady || !strings.HasPrefix(string(step.Reason), c.want) || c.want == "" && step.Reason != "" {
				t.Errorf("got %s %q, %v", step.To, step.Reason, err)
			}
		})
	}
}
