package lifecycle_test

import (
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

func TestInstance(t *testing.T) {
	owned := dstack.Offer{OwnedInstance: "i"}
	alive := &dstack.Machine{State: dstack.MachineRunning}
	failed := &dstack.Machine{State: dstack.MachineFailed}
	some := []lifecycle.PlacedReplica{{Replica: rep(0, 1, dstack.ReplicaReady)}}
	hour := now.Add(-time.Hour)
	for _, c := range []struct {
		name string
		seen lifecycle.InstanceFacts
		to   dstack.InstanceStatus
		do   lifecycle.Action
	}{
		{"an owned machine is up at once", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Offer: owned}, Listed: true, Machine: alive}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a rented machine is created", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Listed: true, Replicas: some}, dstack.InstanceCreating, lifecycle.CreateMachine},
		{"not twice while its backend is silent", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Replicas: some}, dstack.InstanceCreating, lifecycle.NoAction},
		{"a rented machine that never comes up is deleted", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: hour}, Listed: true, Replicas: some}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"also while its backend does not answer", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: hour}, Replicas: some}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"a rented machine without replicas is deleted", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Listed: true}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"up, its engine is synced", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Listed: true, Machine: alive}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a silent backend deletes nothing", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a silent engine of an owned machine deletes nothing", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned, ConsecutiveFailures: 99, LastResponseAt: hour}, Listed: true, Machine: alive, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"one list without a rented machine deletes nothing", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Listed: true, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"nor do two with a gap between them", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, UnlistedSince: hour, CheckedAt: hour}, Listed: true, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"a rented machine that disappeared is deleted", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, UnlistedSince: hour, CheckedAt: now}, Listed: true, Replicas: some}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"a rented machine that failed before it was up is deleted", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Since: now}, Listed: true, Machine: failed, Replicas: some}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"a rented machine that failed while it was up is deleted", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Listed: true, Machine: failed, Replicas: some}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"an owned machine that failed stays", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Listed: true, Machine: failed, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"an owned machine that failed before it was up stays", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating, Offer: owned}, Listed: true, Machine: failed, Replicas: some}, dstack.InstanceCreating, lifecycle.NoAction},
		{"a failed machine is deleted until it is gone", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: now}, Listed: true, Machine: failed}, dstack.InstanceDeleting, lifecycle.DeleteMachine},
		{"deletion is repeated", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}, Listed: true, Machine: alive}, dstack.InstanceDeleting, lifecycle.DeleteMachine},
		{"until the backend has not listed it for long", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: now}, Listed: true}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"one list without it is not enough", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}, Listed: true}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"nor is what was not listed before the deletion began", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: now, UnlistedSince: hour, CheckedAt: now}, Listed: true}, dstack.InstanceDeleting, lifecycle.NoAction},
		{"then it is gone", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour, UnlistedSince: hour, CheckedAt: now}, Listed: true}, dstack.InstanceDeleted, lifecycle.NoAction},
		{"an owned machine without replicas, which its backend does not list any more, is retired", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned, UnlistedSince: hour, CheckedAt: now}, Listed: true}, dstack.InstanceDeleted, lifecycle.NoAction},
		{"not while its backend does not answer", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned, UnlistedSince: hour, CheckedAt: now}}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"not with replicas", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned, UnlistedSince: hour, CheckedAt: now}, Listed: true, Replicas: some}, dstack.InstanceUp, lifecycle.SyncEngine},
		{"an owned machine of a backend that is not configured is retired", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Unconfigured: true}, dstack.InstanceDeleted, lifecycle.NoAction},
		{"its replicas keep it", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Unconfigured: true, Replicas: some}, dstack.InstanceUp, lifecycle.NoAction},
		{"until all of them end", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: owned}, Unconfigured: true, Replicas: []lifecycle.PlacedReplica{{Replica: rep(0, 1, dstack.ReplicaTerminating)}}}, dstack.InstanceDeleted, lifecycle.NoAction},
		{"a rented machine costs money and stays", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceUp}, Unconfigured: true}, dstack.InstanceAway, lifecycle.NoAction},
		{"never while the backend is silent", lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceDeleting, Since: hour}}, dstack.InstanceDeleting, lifecycle.NoAction},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, err := lifecycle.DecideInstance(c.seen, now)
			if err != nil || step.To != c.to || step.Action != c.do {
				t.Errorf("got %+v, %v", step, err)
			}
		})
	}
}

// The failure of a machine is the reason of its deletion, and its replica is
// placed elsewhere.
func TestInstance_AFailedMachineLosesItsReplica(t *testing.T) {
	seen := lifecycle.InstanceFacts{
		Instance: dstack.Instance{Status: dstack.InstanceUp}, Listed: true,
		Machine: &dstack.Machine{State: dstack.MachineFailed, Failure: &dstack.MachineFailure{
			Cause: dstack.FailurePreempted, Message: "spot capacity was reclaimed",
		}},
		Replicas: []lifecycle.PlacedReplica{{Replica: rep(0, 1, dstack.ReplicaReady)}},
	}
	step, err := lifecycle.DecideInstance(seen, now)
	if err != nil || step.Reason != "its machine failed: spot capacity was reclaimed" {
		t.Fatalf("got %+v, %v", step, err)
	}
	instance := step.Apply(seen, false, nil, now)
	run := aRun(1)
	next, err := lifecycle.DecideReplica(lifecycle.ReplicaFacts{Replica: seen.Replicas[0].Replica, Run: run, Instance: &instance}, now)
	if err != nil || next.To != dstack.ReplicaWaiting {
		t.Errorf("its replica: %+v, %v", next, err)
	}
}

func TestInstanceStep_AfterFailure(t *testing.T) {
	rented := lifecycle.InstanceFacts{Instance: dstack.Instance{Status: dstack.InstanceCreating}, Listed: true}
	owned := rented
	owned.Instance.Offer.OwnedInstance = "i"
	for _, c := range []struct {
		name   string
		seen   lifecycle.InstanceFacts
		action lifecycle.Action
		kind   dstack.Kind
		to     dstack.InstanceStatus
	}{
		{"no failure", rented, lifecycle.CreateMachine, "", dstack.InstanceCreating},
		{"no capacity", rented, lifecycle.CreateMachine, dstack.NoCapacity, dstack.InstanceDeleting},
		{"wrong credentials", rented, lifecycle.CreateMachine, dstack.Unauthorized, dstack.InstanceDeleting},
		{"too few permissions", rented, lifecycle.CreateMachine, dstack.Forbidden, dstack.InstanceDeleting},
		{"the backend may answer later", rented, lifecycle.CreateMachine, dstack.Unavailable, dstack.InstanceCreating},
		{"the token was used for another machine", rented, lifecycle.CreateMachine, dstack.Conflict, dstack.InstanceDeleting},
		{"another action failed", rented, lifecycle.SyncEngine, dstack.NoCapacity, dstack.InstanceCreating},
		{"an owned machine", owned, lifecycle.CreateMachine, dstack.NoCapacity, dstack.InstanceCreating},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failure error
			if c.kind != "" {
				failure = &dstack.Error{Kind: c.kind, Message: "refused"}
			}
			step := lifecycle.InstanceStep{To: dstack.InstanceCreating, Action: c.action, Due: now.Add(time.Second)}
			got := step.AfterFailure(c.seen, failure, now)
			if got.To != c.to || c.to == dstack.InstanceDeleting && (got.Reason != "refused" || !got.Due.Equal(now)) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestInstance_SyncsOftenOnlyWhileSomethingChanges(t *testing.T) {
	pace := func(replicas ...dstack.Replica) time.Duration {
		seen := lifecycle.InstanceFacts{
			Instance: dstack.Instance{Status: dstack.InstanceUp, Offer: dstack.Offer{OwnedInstance: "i"}}, Listed: true, Machine: &dstack.Machine{State: dstack.MachineRunning},
		}
		for _, r := range replicas {
			seen.Replicas = append(seen.Replicas, lifecycle.PlacedReplica{Replica: r})
		}
		step, err := lifecycle.DecideInstance(seen, now)
		if err != nil {
			t.Fatal(err)
		}
		return step.Due.Sub(now)
	}
	fresh := rep(0, 1, dstack.ReplicaStarting)
	fresh.AttemptAt, fresh.Since = now, now
	idle, calm, quick := pace(), pace(rep(0, 1, dstack.ReplicaReady)), pace(rep(0, 1, dstack.ReplicaReady), fresh)
	if !(quick < 50*time.Millisecond && calm == time.Second && idle > 10*time.Second) {
		t.Errorf("starting %s, running %s, idle %s", quick, calm, idle)
	}
}

func TestPlanEngineCommands(t *testing.T) {
	try := func(status dstack.ReplicaStatus, grace bool) []lifecycle.PlacedReplica {
		r := rep(0, 1, status)
		r.Graceful = grace
		return []lifecycle.PlacedReplica{{Replica: r}}
	}
	is := func(o dstack.AttemptState) []dstack.Report { return []dstack.Report{{Attempt: "try", State: o}} }
	next := try(dstack.ReplicaStarting, false)
	next[0].Replica.Attempt, next[0].Replica.PastAttempts = "next", []dstack.Attempt{{ID: "try"}}
	for _, c := range []struct {
		name    string
		placed  []lifecycle.PlacedReplica
		reports []dstack.Report
		want    []lifecycle.Command
		grace   bool
	}{
		{"starts what is placed", try(dstack.ReplicaStarting, false), nil, []lifecycle.Command{lifecycle.StartAttempt}, false},
		{"once", try(dstack.ReplicaStarting, false), is(dstack.AttemptPulling), nil, false},
		{"leaves a running attempt alone", try(dstack.ReplicaReady, false), is(dstack.AttemptRunning), nil, false},
		{"does not start a lost attempt again", try(dstack.ReplicaReady, false), nil, nil, false},
		{"keeps an ended attempt until its row says so", try(dstack.ReplicaReady, false), is(dstack.AttemptExited), nil, false},
		{"then removes it", try(dstack.ReplicaRestarting, false), is(dstack.AttemptExited), []lifecycle.Command{lifecycle.RemoveAttempt}, false},
		{"stops a terminating replica with a grace period", try(dstack.ReplicaTerminating, true), is(dstack.AttemptRunning), []lifecycle.Command{lifecycle.StopAttempt}, true},
		{"or without one", try(dstack.ReplicaTerminating, false), is(dstack.AttemptRunning), []lifecycle.Command{lifecycle.StopAttempt}, false},
		{"and then removes it", try(dstack.ReplicaTerminating, true), is(dstack.AttemptExited), []lifecycle.Command{lifecycle.RemoveAttempt}, false},
		{"starts no attempt beside an earlier one of its replica", next, is(dstack.AttemptRunning), []lifecycle.Command{lifecycle.StopAttempt}, true},
		{"starts it beside an earlier one that is over", next, is(dstack.AttemptExited), []lifecycle.Command{lifecycle.RemoveAttempt, lifecycle.StartAttempt}, false},
		{"stops an attempt that is not placed here", nil, is(dstack.AttemptRunning), []lifecycle.Command{lifecycle.StopAttempt}, true},
		{"removes an ended attempt that is not placed here", nil, is(dstack.AttemptRefused), []lifecycle.Command{lifecycle.RemoveAttempt}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lifecycle.PlanEngineCommands(dstack.Instance{}, c.placed, c.reports)
			if len(got) != len(c.want) {
				t.Fatalf("got %+v", got)
			}
			for i, g := range got {
				if g.Command != c.want[i] || (g.GracePeriod > 0) != c.grace {
					t.Errorf("got %+v", g)
				}
			}
		})
	}
}

// An attempt may outlive its replica by its grace period.
func TestNextSyncTime(t *testing.T) {
	late, soon := 30*time.Second, time.Second
	wanted := []lifecycle.PlacedReplica{{Replica: dstack.Replica{Attempt: "a", Status: dstack.ReplicaReady}}}
	for _, c := range []struct {
		name    string
		due     time.Duration
		reports []dstack.Report
		early   bool
	}{
		{"nothing runs", late, nil, false},
		{"only wanted attempts run", late, []dstack.Report{{Attempt: "a"}}, false},
		{"another attempt is still ending", late, []dstack.Report{{Attempt: "a"}, {Attempt: "b"}}, true},
		{"it is due sooner anyhow", time.Millisecond, []dstack.Report{{Attempt: "b"}}, false},
	} {
		step := lifecycle.InstanceStep{Due: now.Add(c.due)}
		got := lifecycle.NextSyncTime(step, wanted, c.reports, now).Sub(now)
		if early := got < soon && got != c.due; early != c.early {
			t.Errorf("%s: due in %s", c.name, got)
		}
	}
}

// A call that a backend fails is repeated with a back-off: a second at first, a
// minute at last.
func TestInstance_RepeatsFailedCallsWithABackOff(t *testing.T) {
	rented := []lifecycle.PlacedReplica{{Replica: rep(0, 1, dstack.ReplicaStarting)}}
	for _, status := range []dstack.InstanceStatus{dstack.InstanceCreating, dstack.InstanceDeleting} {
		for failures, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 3: 8 * time.Second, 50: time.Minute} {
			seen := lifecycle.InstanceFacts{
				Instance: dstack.Instance{Status: status, Since: now, ConsecutiveFailures: failures}, Listed: true, Replicas: rented,
			}
			if status == dstack.InstanceDeleting {
				seen.Machine = &dstack.Machine{State: dstack.MachineRunning}
			}
			step, err := lifecycle.DecideInstance(seen, now)
			if got := step.Due.Sub(now); err != nil || got != want || step.Action == lifecycle.NoAction {
				t.Errorf("%s after %d failures: %q again in %s, want %s (%v)", status, failures, step.Action, got, want, err)
			}
		}
	}
}
