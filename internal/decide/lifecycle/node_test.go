package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// aNode returns a node of a cluster in a status, which its cluster said to be silent for a time; 0: it answers.
func aNode(status dstack.InstanceStatus, silence time.Duration) dstack.Instance {
	i := remote(status, silence)
	i.Backend, i.Offer.IsManaged, i.Offer.Type, i.ConsecutiveFailures, i.LastError = "kubernetes", true, "k2", 0, ""
	if status == dstack.InstanceAway {
		i.Reason = "node k2 does not answer its cluster: NodeStatusUnknown"
	}
	return i
}

func TestDecideInstance_Nodes(t *testing.T) {
	unlisted := func(age time.Duration) dstack.Instance {
		i := aNode(dstack.InstanceUp, 0)
		i.UnlistedSince = now.Add(-age)
		return i
	}
	deaf := aNode(dstack.InstanceUp, 0)
	deaf.ConsecutiveFailures, deaf.LastError, deaf.LastResponseAt = 60, "connection refused", now.Add(-10*time.Minute)
	anyNode := unlisted(time.Hour)
	anyNode.Offer.AnyNode = true
	deafAway := aNode(dstack.InstanceAway, time.Hour)
	const gone, away = "node k2 was removed from its cluster", "node k2 does not answer its cluster: NodeStatusUnknown"
	for _, c := range []struct {
		name     string
		instance dstack.Instance
		listed   bool
		machine  bool
		silence  time.Duration // as the cluster lists the node
		to       dstack.InstanceStatus
		reason   string
		stays    bool
	}{
		{"its cluster says that it lives", aNode(dstack.InstanceUp, 0), true, true, 0, dstack.InstanceUp, "", false},
		{"not ready for 4 s", aNode(dstack.InstanceUp, 0), true, true, 4 * time.Second, dstack.InstanceUp, "", false},
		{"unknown for 40 s: its cluster has waited itself", aNode(dstack.InstanceUp, 0), true, true, 40 * time.Second, dstack.InstanceAway, away, true},
		{"the API server does not answer", deaf, false, false, 0, dstack.InstanceUp, "the API server of kubernetes does not answer: connection refused", false},
		{"the API server answers the list only", deaf, true, true, 0, dstack.InstanceUp, "the API server of kubernetes does not answer: connection refused", false},
		{"it stays away while its cluster says so", aNode(dstack.InstanceAway, time.Hour), true, true, time.Hour, dstack.InstanceAway, away, true},
		{"it stays away while the API server does not answer", deafAway, false, false, 0, dstack.InstanceAway, away, true},
		{"it is back", aNode(dstack.InstanceAway, time.Hour), true, true, 0, dstack.InstanceUp, "", false},
		{"it is not listed for a moment", unlisted(4 * time.Second), true, false, 0, dstack.InstanceUp, "its cluster does not list it", false},
		{"it was removed", unlisted(5 * time.Second), true, false, 0, dstack.InstanceDeleted, gone, false},
		{"any node is no machine that could be removed", anyNode, true, false, 0, dstack.InstanceUp, "", false},
		{"an API server that does not answer removes nothing", unlisted(time.Hour), false, false, 0, dstack.InstanceUp, "", false},
		{"the server did not look for an hour", func() dstack.Instance {
			i := unlisted(time.Hour)
			i.CheckedAt = now.Add(-time.Hour)
			return i
		}(), true, false, 0, dstack.InstanceUp, "its cluster does not list it", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := lifecycle.InstanceFacts{Instance: c.instance, Listed: c.listed, Replicas: []lifecycle.PlacedReplica{{Replica: rep(0, 1, dstack.ReplicaReady)}}}
			if c.machine {
				seen.Machine = &dstack.Machine{State: dstack.MachineRunning}
			}
			if c.silence > 0 {
				seen.Machine.SilentSince, seen.Machine.SilentReason = now.Add(-c.silence), "NodeStatusUnknown"
			}
			step, err := lifecycle.DecideInstance(seen, now)
			if err != nil || step.To != c.to || string(step.Reason) != c.reason || step.StaysAway != c.stays || step.Due.IsZero() {
				t.Errorf("got %+v, %v", step, err)
			}
			if isAsked := c.machine || !c.listed || c.instance.Offer.AnyNode; step.To != dstack.InstanceAway && (step.Action == lifecycle.SyncEngine) != isAsked {
				t.Errorf("its engine is asked: %+v", step)
			}
		})
	}
}

// Only what the cluster lists begins and ends a node's silence: the engine's answers, and their absence, do not.
func TestInstanceStep_SilenceOfNodes(t *testing.T) {
	step := lifecycle.InstanceStep{To: dstack.InstanceUp, Action: lifecycle.SyncEngine, AskedAt: now}
	for _, c := range []struct {
		name            string
		instance        dstack.Instance
		listed, answers bool
		listedSince     time.Duration
		want            time.Duration
	}{
		{"an API server that answers nothing", aNode(dstack.InstanceUp, 0), false, false, 0, 0},
		{"it answers the list only", aNode(dstack.InstanceUp, 0), true, false, 0, 0},
		{"the whole silence that it tells", aNode(dstack.InstanceUp, 0), true, true, 40 * time.Second, 40 * time.Second},
		{"what it told before it fell silent", aNode(dstack.InstanceAway, time.Minute), false, false, 0, time.Minute},
		{"it tells the end", aNode(dstack.InstanceAway, time.Minute), true, false, 0, 0},
	} {
		seen := lifecycle.InstanceFacts{Instance: c.instance, Listed: c.listed}
		if c.listed {
			seen.Machine = &dstack.Machine{State: dstack.MachineRunning}
		}
		if c.listedSince > 0 {
			seen.Machine.SilentSince = now.Add(-c.listedSince)
		}
		got := step.Apply(seen, c.answers, nil, now)
		if want := now.Add(-c.want); c.want == 0 && !got.SilentSince.IsZero() || c.want > 0 && !got.SilentSince.Equal(want) {
			t.Errorf("%s: silent since %s", c.name, got.SilentSince)
		}
	}
	step.To, step.StaysAway = dstack.InstanceAway, true
	if after := step.AfterAnswer(now); after.To != dstack.InstanceAway {
		t.Errorf("an answer of its engine brings a node back: %+v", after)
	}
}

// A node that its cluster says is silent is lost; one of which the cluster said nothing lately is not.
func TestDecideRun_LostNodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(i *dstack.Instance)
		added  bool
		reason string
	}{
		{"silent", func(*dstack.Instance) {}, true, "node k2 does not answer its cluster"},
		{"the API server does not answer", func(i *dstack.Instance) { i.CheckedAt = now.Add(-16 * time.Second) }, false, ""},
		{"cordoned", func(i *dstack.Instance) {
			i.Status, i.SilentSince, i.IsDraining, i.Reason = dstack.InstanceUp, time.Time{}, true, ""
		}, true, "node k2 is cordoned"},
		{"removed: the replica itself is placed again", func(i *dstack.Instance) {
			i.Status, i.SilentSince, i.UnlistedSince, i.Reason = dstack.InstanceUp, time.Time{}, now.Add(-time.Minute), ""
		}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := aNode(dstack.InstanceAway, time.Minute)
			c.change(&i)
			r := rep(0, 2, dstack.ReplicaUnhealthy)
			r.Instance = i.ID
			run := aRun(2)
			run.Status = dstack.RunActive
			step, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{r}, DesiredReplicas: 1,
				Instances: map[dstack.InstanceID]dstack.Instance{i.ID: i}}, now)
			if err != nil || (len(step.Add) == 1) != c.added || !strings.HasPrefix(string(step.AddReason), c.reason) || len(step.Terminate)+len(step.Drain) > 0 {
				t.Errorf("got %+v, %v", step, err)
			}
		})
	}
}

// A replica whose node was removed waits for another place; one that is to end has ended.
func TestDecideReplica_RemovedNode(t *testing.T) {
	i := aNode(dstack.InstanceDeleted, 0)
	for status, to := range map[dstack.ReplicaStatus]dstack.ReplicaStatus{dstack.ReplicaReady: dstack.ReplicaWaiting,
		dstack.ReplicaStarting: dstack.ReplicaWaiting, dstack.ReplicaTerminating: dstack.ReplicaTerminated} {
		seen := facts(status, func(f *lifecycle.ReplicaFacts) { f.Instance, f.Report = &i, nil })
		seen.Replica.Instance, seen.Replica.Attempt = "i", "a"
		if step, err := lifecycle.DecideReplica(seen, now); err != nil || step.To != to {
			t.Errorf("%s: got %+v, %v", status, step, err)
		}
	}
}

// What a cluster ended is no crash, even of a replica that was never ready: it is placed again. A node that ended it soon
// is left out for a while.
func TestDecideReplica_Disrupted(t *testing.T) {
	i := aNode(dstack.InstanceUp, 0)
	for _, c := range []struct {
		status  dstack.ReplicaStatus
		age     time.Duration
		leftOut bool
	}{{dstack.ReplicaStarting, 10 * time.Second, true}, {dstack.ReplicaReady, time.Hour, false}, {dstack.ReplicaUnhealthy, time.Hour, false}} {
		seen := facts(c.status, func(f *lifecycle.ReplicaFacts) {
			f.Instance = &i
			f.Report = &dstack.Report{State: dstack.AttemptExited, ExitCode: 137, Disrupted: true, Error: "the node k2 was short of memory"}
		})
		seen.Replica.Crashes, seen.Replica.AttemptAt, seen.Replica.Attempt = 2, now.Add(-c.age), "a"
		step, err := lifecycle.DecideReplica(seen, now)
		if err != nil || step.To != dstack.ReplicaWaiting || step.Crashes != 2 || step.EndedAttempt == nil || !step.Due.Equal(now) ||
			step.Reason != "the node k2 was short of memory" || (step.LeftOut != nil) != c.leftOut {
			t.Errorf("%s: got %+v, %v", c.status, step, err)
		}
	}
}

// Rule 35: a replica whose pod is being deleted leaves at once, so that its run replaces it while the pod still runs. Those that the
// server ends itself, and those whose pod has ended, go on as they are.
func TestDecideReplica_Ending(t *testing.T) {
	ending := dstack.Report{State: dstack.AttemptRunning, Ending: "the pod is being ended: its node does not answer"}
	over := ending
	over.State = dstack.AttemptExited
	for _, c := range []struct {
		status      dstack.ReplicaStatus
		machine     dstack.InstanceStatus
		report      dstack.Report
		isDisrupted bool
		age         time.Duration
		to          dstack.ReplicaStatus
		leftOut     bool
	}{
		{dstack.ReplicaReady, dstack.InstanceUp, ending, false, time.Second, dstack.ReplicaDraining, false},
		{dstack.ReplicaReady, dstack.InstanceUp, ending, true, time.Second, dstack.ReplicaDraining, true},
		{dstack.ReplicaReady, dstack.InstanceUp, ending, true, time.Hour, dstack.ReplicaDraining, false},
		{dstack.ReplicaUnhealthy, dstack.InstanceUp, ending, false, time.Hour, dstack.ReplicaDraining, false},
		{dstack.ReplicaUnhealthy, dstack.InstanceAway, ending, false, time.Hour, dstack.ReplicaDraining, false},
		{dstack.ReplicaStarting, dstack.InstanceUp, ending, false, time.Hour, dstack.ReplicaTerminating, false},
		{dstack.ReplicaReady, dstack.InstanceUp, over, false, time.Hour, dstack.ReplicaRestarting, false},
		{dstack.ReplicaReady, dstack.InstanceDeleted, ending, false, time.Hour, dstack.ReplicaWaiting, false},
		{dstack.ReplicaRestarting, dstack.InstanceUp, ending, false, time.Hour, dstack.ReplicaRestarting, false},
		{dstack.ReplicaTerminating, dstack.InstanceUp, ending, false, time.Hour, dstack.ReplicaTerminating, false},
	} {
		i := aNode(c.machine, 0)
		seen := facts(c.status, func(f *lifecycle.ReplicaFacts) { f.Instance, f.Report = &i, &c.report })
		c.report.Disrupted = c.isDisrupted
		seen.Run.Spec.Configuration.DrainTimeout = new(spec.Seconds(40))
		seen.Replica.Instance, seen.Replica.Attempt, seen.Replica.AttemptAt, seen.Replica.Graceful = "i", "a", now.Add(-c.age), false
		step, err := lifecycle.DecideReplica(seen, now)
		if err != nil || step.To != c.to || (step.LeftOut != nil) != c.leftOut {
			t.Errorf("%s: got %+v, %v", c.status, step, err)
			continue
		}
		next := step.Apply(seen.Replica, lifecycle.NewIDs{}, now)
		if c.to == dstack.ReplicaDraining && (!next.DrainDeadline.Equal(now.Add(40*time.Second)) || step.Reason != "the pod is being ended: its node does not answer" ||
			step.Crashes != seen.Replica.Crashes || step.Due.IsZero()) || next.Graceful != (step.Reason == dstack.Reason(ending.Ending)) {
			t.Errorf("%s: got %+v, %+v", c.status, step, next)
		}
		if c.to != dstack.ReplicaDraining {
			continue
		}
		run := seen.Run
		run.Status = dstack.RunActive
		replaces, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{next}, DesiredReplicas: 1}, now)
		if err != nil || len(replaces.Add) != 1 || replaces.Add[0].Num == next.Num {
			t.Errorf("the run: %+v, %v", replaces, err)
		}
	}
}

// A replica that no node took within the cluster's limit gives up at once, unless its run retries or has served; its run ends
// for lack of capacity.
func TestDecideReplica_NoNode(t *testing.T) {
	i := aNode(dstack.InstanceUp, 0)
	i.Offer.AnyNode = true
	seen := facts(dstack.ReplicaStarting, func(f *lifecycle.ReplicaFacts) {
		f.Instance = &i
		f.Report = &dstack.Report{State: dstack.AttemptRefused, OtherMachine: true, Error: "no node within 15m: 0/2 nodes are available"}
	})
	seen.Run.ReadyAt, seen.Run.StableRevision = time.Time{}, 0
	seen.Replica.Instance, seen.Replica.Attempt, seen.Replica.SubmittedAt = "i", "a", now.Add(-15*time.Minute)
	step, err := lifecycle.DecideReplica(seen, now)
	if err != nil || step.To != dstack.ReplicaWaiting || step.LeftOut == nil || step.EndedAttempt == nil || !step.EndedAttempt.NoNode {
		t.Fatalf("got %+v, %v", step, err)
	}
	seen.Replica = step.Apply(seen.Replica, lifecycle.NewIDs{}, now)
	seen.Instance, seen.Report = nil, nil
	seen.Rejections = []dstack.Rejection{{Offer: i.Offer, Reason: "failed lately: " + string(step.Reason)}}
	seen.Limits = lifecycle.Limits{PlaceTimeout: time.Minute}

	if step, err = lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaFailed || !strings.Contains(string(step.Reason), "0/2 nodes are available") {
		t.Fatalf("got %+v, %v", step, err)
	}
	failed := step.Apply(seen.Replica, lifecycle.NewIDs{}, now)
	ends, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: seen.Run, Replicas: []dstack.Replica{failed}, DesiredReplicas: 1}, now)
	if err != nil || ends.Ending != dstack.EndNoCapacity {
		t.Errorf("the run: %+v, %v", ends, err)
	}

	seen.Run.Spec.Configuration.Retry = &spec.Retry{OnEvents: []string{spec.EventNoCapacity}, Duration: new(spec.Seconds(3600))}
	if step, err = lifecycle.DecideReplica(seen, now); err != nil || step.To != dstack.ReplicaWaiting {
		t.Errorf("it retries for an hour: %+v, %v", step, err)
	}
	if step, err = lifecycle.DecideReplica(seen, now.Add(time.Hour)); err != nil || step.To != dstack.ReplicaFailed {
		t.Errorf("after an hour: %+v, %v", step, err)
	}
	seen.Run.ReadyAt = now
	if step, err = lifecycle.DecideReplica(seen, now.Add(time.Hour)); err != nil || step.To != dstack.ReplicaWaiting {
		t.Errorf("of a run that serves: %+v, %v", step, err)
	}
}

// A pod that no replica has does not hold up the others of its cluster, which knows itself what the pod holds.
func TestPlanEngineCommands_LeftPods(t *testing.T) {
	starts := rep(0, 1, dstack.ReplicaStarting)
	starts.Attempt = "new"
	commands := lifecycle.PlanEngineCommands(aNode(dstack.InstanceUp, 0), []lifecycle.PlacedReplica{{Replica: starts}},
		[]dstack.Report{{Attempt: "left", State: dstack.AttemptRunning}})
	if len(commands) != 2 || commands[0].Command != lifecycle.StopAttempt || commands[1].Command != lifecycle.StartAttempt {
		t.Errorf("got %+v", commands)
	}
}
