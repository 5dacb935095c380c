package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// program is that of this server in the tests, and earlierProgram the one before.
var (
	program        = dstack.GatewayProgram{Digest: "new", Version: "0.3.0", Owner: "a", OwnerSeenAt: now}
	earlierProgram = dstack.GatewayProgram{Digest: "old", Version: "0.2.0", Owner: "a", OwnerSeenAt: now}
)

func newHost(name string) dstack.Host {
	return dstack.Host{ID: dstack.InstanceID("id-" + name), Name: name, FleetName: "edge", Check: dstack.HostCheck{Status: dstack.HostReady}}
}

// newPlacement returns a placement that serves, since a minute.
func newPlacement(host string) dstack.GatewayPlacement {
	return dstack.GatewayPlacement{
		ID: dstack.GatewayPlacementID("on-" + host), Host: dstack.InstanceID("id-" + host), HostName: host, Program: program,
		Phase: dstack.GatewayServing, CreatedAt: now.Add(-time.Minute), Since: now.Add(-time.Minute),
	}
}

// newFacts returns a gateway with so many processes that serve, each on a host of its own, and further hosts.
func newFacts(serving int, hosts ...string) PlacementFacts {
	facts := PlacementFacts{
		Name: "main", Wanted: serving, Program: program, Occupied: map[dstack.InstanceID]string{},
		Containers: map[dstack.GatewayPlacementID][]dstack.GatewayContainer{}, Unanswered: map[dstack.GatewayPlacementID]error{},
	}
	for i, name := range hosts {
		facts.Hosts = append(facts.Hosts, newHost(name))
		if i < serving {
			p := newPlacement(name)
			facts.Placements = append(facts.Placements, p)
			facts.Processes = append(facts.Processes, dstack.GatewayProcess{Host: p.Host, SeenAt: now, Version: program.Version})
			facts.Containers[p.ID] = []dstack.GatewayContainer{newContainer(p, program.Digest, dstack.GatewayContainerRunning)}
		}
	}
	return facts
}

func newContainer(p dstack.GatewayPlacement, digest string, state dstack.GatewayContainerState) dstack.GatewayContainer {
	return dstack.GatewayContainer{Placement: p.ID, Program: digest, State: state, StartedAt: now.Add(-time.Minute)}
}

// describePlan writes a plan in a few words.
func describePlan(plan PlacementPlan) string {
	var words []string
	for _, n := range plan.New {
		words = append(words, "+"+n.HostName)
	}
	for _, s := range plan.Steps {
		text := fmt.Sprintf("%s=%s", s.HostName, s.Phase)
		if s.Action != NoPlacementAction {
			text += ":" + strings.TrimSpace(string(s.Action)+" "+s.Target)
		}
		if s.IsGone {
			text += ":gone"
		}
		words = append(words, text)
	}
	return strings.Join(words, " ")
}

func TestDecidePlacements(t *testing.T) {
	for name, test := range map[string]struct {
		facts   PlacementFacts
		change  func(*PlacementFacts)
		expect  string
		problem string // a part of it
	}{
		"nothing to do": {newFacts(1, "h1", "h2"), nil, "h1=serving", ""},
		"the first process is placed on the first host": {newFacts(0, "h1", "h2"), func(f *PlacementFacts) { f.Wanted = 1 }, "+h1", ""},
		"each process has its own host":                 {newFacts(1, "h1", "h2", "h3"), func(f *PlacementFacts) { f.Wanted = 3 }, "+h2 +h3 h1=serving", ""},
		"hosts are taken in the order of the configuration": {
			newFacts(0, "h1", "h2", "h3"), func(f *PlacementFacts) { f.Wanted, f.HostNames = 2, []string{"edge/h3", "h2"} }, "+h3 +h2", "",
		},
		"hosts of no fleet": {newFacts(0), func(f *PlacementFacts) { f.Wanted = 1 }, "", "the project has no hosts"},
		"no host suits": {
			newFacts(0, "h1", "h2", "h3", "h4"), func(f *PlacementFacts) {
				f.Wanted, f.HostNames = 1, []string{"h1", "h2", "h3"}
				f.Hosts[0].Check.Status, f.Hosts[1].IsDraining = dstack.HostFailed, true
				f.Occupied["id-h3"] = "other"
			}, "", "0 of 1 process found a host: h1 is failed; h2 is drained; h3 serves the gateway other, which needs the same ports; h4 is not in `hosts`",
		},
		"fewer hosts than processes": {newFacts(1, "h1"), func(f *PlacementFacts) { f.Wanted = 2 }, "h1=serving", "1 of 2 processes found a host"},
		"fewer processes are wanted: one that does not serve leaves": {
			newFacts(2, "h1", "h2"), func(f *PlacementFacts) { f.Wanted, f.Processes = 1, f.Processes[1:] }, "h1=leaving h2=serving", "",
		},
		"the gateway is being deleted": {newFacts(2, "h1", "h2"), func(f *PlacementFacts) { f.Wanted = 0 }, "h1=leaving h2=leaving", ""},
		"what leaves is removed afterwards": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Wanted, f.Placements[0].Phase = 0, dstack.GatewayLeaving }, "h1=leaving:remove new", "",
		},
		"at last, its data": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Wanted, f.Placements[0].Phase = 0, dstack.GatewayLeaving
				f.Containers["on-h1"] = nil
			}, "h1=leaving:delete data:gone", "",
		},
		"what leaves waits for its host": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Wanted, f.Placements[0].Phase = 0, dstack.GatewayLeaving
				f.Unanswered["on-h1"] = errors.New("no answer")
			}, "h1=leaving", "",
		},
		"what leaves a lost host that is removed is given up": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Wanted, f.Placements[0].Phase, f.Processes = 0, dstack.GatewayLeaving, nil
				f.Unanswered["on-h1"], f.Hosts[0].IsLeaving = errors.New("no answer"), true
				f.Placements[0].SilentSince = now.Add(-gatewayLostAfter)
			}, "h1=leaving:gone", "",
		},
		"what leaves is gone with its host": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Wanted, f.Placements[0].Phase, f.Hosts = 0, dstack.GatewayLeaving, nil }, "h1=leaving:gone", "",
		},
		"a drained host goes on until another one serves": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) { f.Hosts[0].IsDraining = true }, "+h2 h1=serving", "its host is drained; it goes on until another host serves",
		},
		"a drained host without another one goes on": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Hosts[0].IsDraining = true }, "h1=serving", "0 of 1 process found a host",
		},
		"a drained host is left once another one serves": {
			newFacts(2, "h1", "h2"), func(f *PlacementFacts) { f.Wanted, f.Hosts[0].IsDraining = 1, true }, "h1=leaving h2=serving", "",
		},
		"a removed host goes on until another one serves": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) { f.Hosts[0].IsLeaving = true }, "+h2 h1=serving", "its host is being removed",
		},
		"a removed host is left at once without another one": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Hosts[0].IsLeaving = true }, "h1=leaving", "0 of 1 process found a host",
		},
		"a host that the configuration does not list any more": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) { f.HostNames = []string{"h2"} }, "+h2 h1=serving", "its host is not in `hosts` any more",
		},
		"a host is silent for a moment": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) {
				f.Unanswered["on-h1"], f.Processes = errors.New("no answer"), nil
			}, "h1=serving", "on h1: the host does not answer: no answer",
		},
		"a host is lost": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) {
				f.Unanswered["on-h1"], f.Processes = errors.New("no answer"), nil
				f.Placements[0].SilentSince = now.Add(-gatewayLostAfter)
			}, "+h2 h1=serving", "its host has not answered for 60s; it goes on until",
		},
		"a host is not lost while its process reports": {
			newFacts(1, "h1", "h2"), func(f *PlacementFacts) {
				f.Unanswered["on-h1"] = errors.New("no answer")
				f.Placements[0].SilentSince = now.Add(-time.Hour)
			}, "h1=serving", "",
		},
		"the process of a lost host is removed when another one serves": {
			newFacts(2, "h1", "h2"), func(f *PlacementFacts) {
				f.Wanted, f.Processes = 1, f.Processes[1:]
				f.Unanswered["on-h1"] = errors.New("no answer")
				f.Placements[0].SilentSince = now.Add(-gatewayLostAfter)
			}, "h1=leaving h2=serving", "",
		},
		"a new version: the intent first": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Placements[0].Program = earlierProgram
				f.Containers["on-h1"][0].Program = "old"
			}, "h1=serving", "",
		},
		"a new version is started beside the one before": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Containers["on-h1"][0].Program = "old" }, "h1=serving:start", "",
		},
		"the version before goes on while it has requests": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Containers["on-h1"] = append(f.Containers["on-h1"], newContainer(f.Placements[0], "old", dstack.GatewayContainerRunning))
			}, "h1=serving", "",
		},
		"the version before is removed once it has ended": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Containers["on-h1"] = append(f.Containers["on-h1"], newContainer(f.Placements[0], "old", dstack.GatewayContainerEnded))
			}, "h1=serving:remove old", "",
		},
		"the version before is stopped if the new one does not take over": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Processes[0].Version = "0.2.0"
				f.Containers["on-h1"][0].StartedAt = now.Add(-takeOverLimit)
				f.Containers["on-h1"] = append(f.Containers["on-h1"], newContainer(f.Placements[0], "old", dstack.GatewayContainerRunning))
			}, "h1=serving:remove old", "",
		},
		"a new version that does not start leaves the one before": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				failed := newContainer(f.Placements[0], "new", dstack.GatewayContainerFailed)
				failed.Message = "exec format error"
				f.Containers["on-h1"] = []dstack.GatewayContainer{failed, newContainer(f.Placements[0], "old", dstack.GatewayContainerRunning)}
			}, "h1=serving", "its new version does not start, and the one before goes on: exec format error",
		},
		"a container that failed is started again after a pause": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Placements[0].Failures, f.Placements[0].NextAt = 1, now
				f.Containers["on-h1"][0].State, f.Processes = dstack.GatewayContainerFailed, nil
			}, "h1=starting:start", "its process ended",
		},
		"a container that is gone is started again": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Containers["on-h1"], f.Processes = nil, nil }, "h1=starting:start", "",
		},
		"a process that does not join is told": {
			newFacts(1, "h1"), func(f *PlacementFacts) { f.Processes = nil }, "h1=starting", "has not reached a server for 60s",
		},
		"a process that cannot reach the server through SSH is told, with the reason": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Processes, f.Unreached = nil, map[dstack.InstanceID]string{"id-h1": "sshd does not listen"}
			}, "h1=starting", "has not reached a server for 60s: sshd does not listen",
		},
		"another server's program is left alone": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Placements[0].Program = dstack.GatewayProgram{Digest: "other", Owner: "b", OwnerSeenAt: now.Add(-time.Minute)}
				f.Containers["on-h1"][0].Program = "other"
			}, "h1=serving", "",
		},
		"another server's program cannot be started": {
			newFacts(1, "h1"), func(f *PlacementFacts) {
				f.Placements[0].Program = dstack.GatewayProgram{Digest: "other", Owner: "b", OwnerSeenAt: now.Add(-time.Minute)}
				f.Containers["on-h1"], f.Processes = nil, nil
			}, "h1=starting", "waits for the server b, which has its program",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.change != nil {
				test.change(&test.facts)
			}
			plan := DecidePlacements(test.facts, now)
			if got := describePlan(plan); got != test.expect {
				t.Errorf("the plan is %q, want %q", got, test.expect)
			}
			if problem := plan.Problem(); (test.problem == "") != (problem == "") || !strings.Contains(problem, test.problem) {
				t.Errorf("the problem is %q, want %q", problem, test.problem)
			}
		})
	}
}

// TestDecidePlacements_ProgramOfAnotherServer: of two servers with different programs only the owner replaces its own; the
// other one does once the owner has been away for long.
func TestDecidePlacements_ProgramOfAnotherServer(t *testing.T) {
	for _, test := range []struct {
		owner  string
		seen   time.Duration
		expect string
	}{{"a", time.Hour, "new"}, {"b", time.Minute, "old"}, {"b", ownerGoneAfter, "new"}} {
		facts := newFacts(1, "h1")
		facts.Placements[0].Program = dstack.GatewayProgram{Digest: "old", Owner: test.owner, OwnerSeenAt: now.Add(-test.seen)}
		facts.Containers["on-h1"][0].Program = "old"
		step := DecidePlacements(facts, now).Steps[0]
		if step.Program.Digest != test.expect || step.Action != NoPlacementAction {
			t.Errorf("owner %s seen %s ago: program %s, action %q", test.owner, test.seen, step.Program.Digest, step.Action)
		}
	}
}

// TestDecidePlacements_BackOff: pauses between starts grow and are bounded, and a process that serves ends them.
func TestDecidePlacements_BackOff(t *testing.T) {
	facts := newFacts(1, "h1")
	processes := facts.Processes
	facts.Processes = nil
	facts.Containers["on-h1"][0].State = dstack.GatewayContainerFailed
	at, starts := now, 0
	for range 12 {
		step := DecidePlacements(facts, at).Steps[0]
		if pause := step.NextAt.Sub(at); pause < minStartBackoff || pause > maxStartBackoff {
			t.Fatalf("after %d failures the pause is %s", step.Failures, pause)
		}
		if step.Action == StartContainer {
			starts++
		}
		facts.Placements[0] = step.GatewayPlacement
		if early := DecidePlacements(facts, step.NextAt.Add(-time.Second)).Steps[0]; early.Action != NoPlacementAction || early.NextAt != step.NextAt {
			t.Fatalf("before the pause ends: %+v", early)
		}
		at = step.NextAt
	}
	if starts != 11 {
		t.Errorf("%d starts in 12 looks, of which the first saw the failure", starts)
	}
	facts.Containers["on-h1"][0].State = dstack.GatewayContainerRunning
	processes[0].SeenAt = at
	facts.Processes = processes
	if step := DecidePlacements(facts, at).Steps[0]; step.Failures != 0 || !step.NextAt.IsZero() || step.Phase != dstack.GatewayServing {
		t.Errorf("once it serves: %+v", step)
	}
}
