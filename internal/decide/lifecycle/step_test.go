package lifecycle_test

import (
	"errors"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestRunStep_Apply(t *testing.T) {
	run := aRun(2)
	run.Status, run.Since = dstack.RunSubmitted, now.Add(-time.Hour)
	step := lifecycle.RunStep{To: dstack.RunActive, Reason: "so", DesiredReplicas: 3, Ready: true, Started: true}
	next := step.Apply(run, dstack.Revision{}, now)
	for what, at := range map[string]time.Time{"Since": next.Since, "ReadyAt": next.ReadyAt, "StartedAt": next.StartedAt, "ScaledAt": next.ScaledAt} {
		if !at.Equal(now) {
			t.Errorf("%s is %s", what, at)
		}
	}
	if next.Status != dstack.RunActive || next.Reason != "so" || next.DesiredReplicas != 3 || !next.FinishedAt.IsZero() || !step.ChangesRun(run) {
		t.Errorf("got %+v", next)
	}

	// The same step later changes nothing: the run is ready, started and active since before.
	again := step.Apply(next, dstack.Revision{}, now.Add(time.Hour))
	if !again.Since.Equal(now) || !again.ReadyAt.Equal(now) || !again.StartedAt.Equal(now) || !again.ScaledAt.Equal(now) || step.ChangesRun(next) {
		t.Errorf("the same step again: %+v", again)
	}
	ended := lifecycle.RunStep{To: dstack.RunTerminated, Ending: dstack.EndStopped, DesiredReplicas: 3}.Apply(next, dstack.Revision{}, now.Add(time.Hour))
	if !ended.FinishedAt.Equal(now.Add(time.Hour)) || ended.Ending != dstack.EndStopped {
		t.Errorf("ended: %+v", ended)
	}
}

func TestRunStep_ApplyRollsBackWithinTheRange(t *testing.T) {
	run := updating(5)
	run.ScaledAt = now.Add(-time.Hour)
	target := dstack.Revision{Num: 1, TemplateRevision: 1, User: "ann"}
	target.Spec.Configuration.Replicas = spec.Replicas{Min: 1, Max: 3}
	step := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 5, Rollback: &lifecycle.Rollback{ToRevision: 1}}
	next := step.Apply(run, target, now)
	if next.Revision != 1 || next.TemplateRevision != 1 || next.StableRevision != 0 || next.LatestRevision != 2 || next.User != "ann" ||
		!next.ReadyAt.Equal(now) || next.DesiredReplicas != 3 || !next.ScaledAt.Equal(now) || next.Spec.Configuration.Replicas.Max != 3 {
		t.Errorf("got %+v", next)
	}
	if !step.ChangesRun(run) {
		t.Error("a rollback changes nothing")
	}
}

func TestRunStep_DrainReplica(t *testing.T) {
	step := lifecycle.RunStep{DrainTimeout: 30 * time.Second, StopReason: "scaled down"}
	for _, status := range []dstack.ReplicaStatus{dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaRestarting} {
		before := rep(0, 2, status)
		before.RetryAt = now
		r := step.DrainReplica(before, now)
		if r.Status != dstack.ReplicaDraining || r.Reason != "scaled down" || !r.Since.Equal(now) || !r.Graceful || !r.DrainDeadline.Equal(now.Add(30*time.Second)) || !r.RetryAt.IsZero() {
			t.Errorf("%s: got %+v", status, r)
		}
	}
	for _, status := range []dstack.ReplicaStatus{dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed} {
		if r := step.DrainReplica(rep(0, 2, status), now); r.Status != status || r.Reason != "why" {
			t.Errorf("%s: got %+v", status, r)
		}
	}
}

func TestRunStep_TerminateReplica(t *testing.T) {
	graceful := lifecycle.RunStep{Graceful: true, StopReason: "stopped"}
	abort := lifecycle.RunStep{StopReason: "aborted"}
	leaves := rep(0, 2, dstack.ReplicaTerminating)
	leaves.Graceful = true
	for _, c := range []struct {
		name     string
		step     lifecycle.RunStep
		before   dstack.Replica
		ok       bool
		graceful bool
		since    time.Time
	}{
		{"a starting replica", graceful, rep(0, 2, dstack.ReplicaStarting), true, true, now},
		{"a replica that became ready has to drain first", graceful, rep(0, 2, dstack.ReplicaReady), false, false, time.Time{}},
		{"and an unhealthy replica", graceful, rep(0, 2, dstack.ReplicaUnhealthy), false, false, time.Time{}},
		{"an abort waits for nothing", abort, rep(0, 2, dstack.ReplicaReady), true, false, now},
		{"a draining replica", abort, rep(0, 2, dstack.ReplicaDraining), true, false, now},
		{"a terminating replica loses its grace period and keeps its time", abort, leaves, true, false, leaves.Since},
		{"and never gets one back", graceful, rep(0, 2, dstack.ReplicaTerminating), true, false, leaves.Since},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.before.RetryAt = now
			r, ok := c.step.TerminateReplica(c.before, now)
			if ok != c.ok {
				t.Fatalf("ok is %v", ok)
			}
			if ok && (r.Status != dstack.ReplicaTerminating || r.Graceful != c.graceful || !r.Since.Equal(c.since) || r.Reason != c.step.StopReason || !r.RetryAt.IsZero()) {
				t.Errorf("got %+v", r)
			}
		})
	}
	finished := rep(0, 2, dstack.ReplicaTerminated)
	if r, ok := abort.TerminateReplica(finished, now); !ok || r.Status != dstack.ReplicaTerminated || r.Reason != "why" {
		t.Errorf("a finished replica: %+v, %v", r, ok)
	}
}

func TestReplicaStep_Apply(t *testing.T) {
	began := now.Add(-time.Minute)
	r := rep(0, 2, dstack.ReplicaStarting)
	r.AttemptAt, r.ReadyAt = began, began.Add(-time.Hour) // of an earlier attempt
	ready := lifecycle.ReplicaStep{To: dstack.ReplicaReady}
	r = ready.Apply(r, lifecycle.NewIDs{}, now)
	if !r.ReadyAt.Equal(now) || !r.Since.Equal(now) {
		t.Fatalf("its attempt became ready: %+v", r)
	}
	r = lifecycle.ReplicaStep{To: dstack.ReplicaUnhealthy}.Apply(r, lifecycle.NewIDs{}, now.Add(time.Second))
	if r = ready.Apply(r, lifecycle.NewIDs{}, now.Add(time.Minute)); !r.ReadyAt.Equal(now) {
		t.Errorf("an attempt that comes back from unhealthy is ready since %s", r.ReadyAt)
	}

	ended := &dstack.Attempt{ID: "try"}
	r = lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, EndedAttempt: ended, Crashes: 1, RetryAt: now}.Apply(r, lifecycle.NewIDs{}, now)
	if len(r.PastAttempts) != 1 || r.PastAttempts[0].ID != "try" || r.Crashes != 1 || !r.RetryAt.Equal(now) || r.Instance != "i" {
		t.Errorf("restarting: %+v", r)
	}
	r.Claim.CPUs = 3
	r = lifecycle.ReplicaStep{To: dstack.ReplicaWaiting, Blocked: true}.Apply(r, lifecycle.NewIDs{}, now)
	if r.Instance != "" || r.Claim.CPUs != 0 || !r.Blocked {
		t.Errorf("waiting: %+v", r)
	}
	placed := lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true, Placement: &dstack.Placement{Claim: dstack.Claim{CPUs: 2}}}
	r = placed.Apply(r, lifecycle.NewIDs{Instance: "new", Attempt: "second"}, now)
	if r.Instance != "new" || r.Claim.CPUs != 2 || r.Attempt != "second" || r.AttemptNum != 1 || !r.AttemptAt.Equal(now) || r.Blocked {
		t.Errorf("on a rented machine: %+v", r)
	}
	placed.Placement.Offer.OwnedInstance = "mine"
	if r = placed.Apply(dstack.Replica{}, lifecycle.NewIDs{Instance: "new", Attempt: "first"}, now); r.Instance != "mine" || r.AttemptNum != 0 {
		t.Errorf("on an owned machine: %+v", r)
	}
	if r = (lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}).Apply(r, lifecycle.NewIDs{}, now); !r.FinishedAt.Equal(now) {
		t.Errorf("finished: %+v", r)
	}
}

func TestReplicaStep_RemembersTheLatestAttempts(t *testing.T) {
	r := rep(0, 2, dstack.ReplicaReady)
	for i := range lifecycle.MaxPastAttempts + 5 {
		before := r.PastAttempts
		r = lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, EndedAttempt: &dstack.Attempt{Num: i}}.Apply(r, lifecycle.NewIDs{}, now)
		if len(before) > 0 && before[0].Num != max(0, i-lifecycle.MaxPastAttempts) {
			t.Fatal("the replica before the step was written to")
		}
	}
	if n := len(r.PastAttempts); n != lifecycle.MaxPastAttempts || r.PastAttempts[0].Num != 5 || r.PastAttempts[n-1].Num != n+4 {
		t.Errorf("remembers %+v", r.PastAttempts)
	}
}

// syncing is a rented instance that is up, is listed and holds a replica.
func syncing(i dstack.Instance) lifecycle.InstanceFacts {
	i.Status = dstack.InstanceUp
	return lifecycle.InstanceFacts{Instance: i, Listed: true, Machine: &dstack.Machine{State: dstack.MachineRunning},
		Replicas: []lifecycle.PlacedReplica{{Replica: rep(0, 2, dstack.ReplicaReady)}}}
}

func TestInstanceStep_Apply(t *testing.T) {
	step := lifecycle.InstanceStep{To: dstack.InstanceUp, Action: lifecycle.SyncEngine}
	seen := syncing(dstack.Instance{})
	seen.Instance.Status = dstack.InstanceCreating
	i := step.Apply(seen, true, nil, now)
	if i.Status != dstack.InstanceUp || !i.Since.Equal(now) || !i.LastResponseAt.Equal(now) || i.ConsecutiveFailures != 0 {
		t.Fatalf("it came up: %+v", i)
	}
	seen.Instance = i
	if next := step.Apply(seen, true, nil, now.Add(time.Second)); !next.LastResponseAt.Equal(now.Add(time.Second)) || !next.Since.Equal(now) {
		t.Errorf("an answer is not written: %+v", next)
	}
	seen.Instance = step.Apply(seen, false, errors.New("refused"), now.Add(time.Second))
	if seen.Instance.ConsecutiveFailures != 1 || seen.Instance.LastError != "refused" {
		t.Errorf("it failed: %+v", seen.Instance)
	}
	seen.Instance = step.Apply(seen, false, errors.New("timeout"), now.Add(time.Second))
	if seen.Instance.ConsecutiveFailures != 2 || seen.Instance.LastError != "timeout" {
		t.Errorf("it failed again: %+v", seen.Instance)
	}
	if next := step.Apply(seen, true, nil, now.Add(2*time.Second)); next.ConsecutiveFailures != 0 || next.LastError != "" || !next.LastResponseAt.Equal(now.Add(2*time.Second)) {
		t.Errorf("it answers again: %+v", next)
	}
}

func TestNewInstance_HasTheIdleTimeOfItsRun(t *testing.T) {
	idle := func(change func(*spec.Service)) time.Duration {
		var rs dstack.RunSpec
		change(&rs.Configuration)
		i := lifecycle.NewInstance("id", dstack.Offer{Key: "cloud", Host: "here"}, dstack.Run{Spec: rs}, now)
		if i.ID != "id" || i.Backend != "cloud" || i.Host != "here" || i.Status != dstack.InstanceCreating || !i.Since.Equal(now) {
			t.Errorf("got %+v", i)
		}
		return i.IdleTime
	}
	if d := idle(func(*spec.Service) {}); d != 5*time.Minute {
		t.Errorf("the default is %s", d)
	}
	if d := idle(func(s *spec.Service) { s.TerminationIdleTime = new(spec.Seconds(90)) }); d != 90*time.Second {
		t.Errorf("got %s", d)
	}
	if d := idle(func(s *spec.Service) { s.TerminationPolicy = "dont-destroy" }); d >= 0 {
		t.Errorf("dont-destroy is %s", d)
	}
	if d := idle(func(s *spec.Service) { s.TerminationIdleTime = new(spec.Seconds(-1)) }); d >= 0 {
		t.Errorf("-1 is %s", d)
	}
}

// decideInstance decides and applies.
func decideInstance(t *testing.T, seen lifecycle.InstanceFacts, answered bool, failure error, at time.Time) (lifecycle.InstanceStep, dstack.Instance) {
	t.Helper()
	step, err := lifecycle.DecideInstance(seen, at)
	if err != nil {
		t.Fatal(err)
	}
	return step, step.Apply(seen, answered, failure, at)
}

func TestInstance_EmptyForItsIdleTimeIsDeleted(t *testing.T) {
	seen := syncing(dstack.Instance{IdleTime: time.Minute})
	_, seen.Instance = decideInstance(t, seen, true, nil, now)
	if !seen.Instance.EmptySince.IsZero() {
		t.Fatalf("it holds a replica and is empty since %s", seen.Instance.EmptySince)
	}
	held := seen.Replicas
	seen.Replicas = nil
	var step lifecycle.InstanceStep
	step, seen.Instance = decideInstance(t, seen, true, nil, now.Add(time.Second))
	if step.To != dstack.InstanceUp || !seen.Instance.EmptySince.Equal(now.Add(time.Second)) {
		t.Fatalf("it has just become empty: %+v", step)
	}
	if step, _ = decideInstance(t, seen, true, nil, now.Add(40*time.Second)); step.To != dstack.InstanceUp || !step.Due.Equal(now.Add(61*time.Second)) {
		t.Errorf("before its idle time is over: %+v", step)
	}
	step, _ = decideInstance(t, seen, true, nil, now.Add(61*time.Second))
	if step.To != dstack.InstanceDeleting || step.Reason != "idle for 60s" {
		t.Errorf("after it: %+v", step)
	}
	silent := seen
	silent.Listed, silent.Machine = false, nil
	if step, _ = decideInstance(t, silent, false, nil, now.Add(time.Hour)); step.To != dstack.InstanceUp || !step.Due.After(now.Add(time.Hour)) {
		t.Errorf("while its backend does not answer: %+v", step)
	}
	owned, kept := seen, seen
	owned.Instance.Offer.OwnedInstance, kept.Instance.IdleTime = "mine", -1
	for name, seen := range map[string]lifecycle.InstanceFacts{"an owned machine": owned, "dont-destroy": kept} {
		if step, _ = decideInstance(t, seen, true, nil, now.Add(time.Hour)); step.To != dstack.InstanceUp {
			t.Errorf("%s: %+v", name, step)
		}
	}
	seen.Replicas = held
	if _, i := decideInstance(t, seen, true, nil, now.Add(30*time.Second)); !i.EmptySince.IsZero() {
		t.Errorf("with a replica again it is empty since %s", i.EmptySince)
	}
}

func TestInstance_SilentForLongIsDeleted(t *testing.T) {
	failure := errors.New("connection refused")
	// silence asks every second from now on, and returns what is decided after d.
	silence := func(seen lifecycle.InstanceFacts, d time.Duration) (lifecycle.InstanceStep, lifecycle.InstanceFacts) {
		t.Helper()
		var step lifecycle.InstanceStep
		for at := time.Duration(0); at <= d; at += time.Second {
			step, seen.Instance = decideInstance(t, seen, false, failure, now.Add(at))
		}
		return step, seen
	}
	if step, _ := silence(syncing(dstack.Instance{}), 5*time.Minute-time.Second); step.To != dstack.InstanceUp {
		t.Errorf("it is deleted too early: %+v", step)
	}
	step, _ := silence(syncing(dstack.Instance{}), 5*time.Minute)
	if step.To != dstack.InstanceDeleting || step.Reason != "its engine did not answer for 5m: connection refused" {
		t.Errorf("after five minutes: %+v", step)
	}
	if step, _ := silence(syncing(dstack.Instance{Offer: dstack.Offer{OwnedInstance: "mine"}}), time.Hour); step.To != dstack.InstanceUp {
		t.Errorf("an owned machine is deleted: %+v", step)
	}
	unlisted := syncing(dstack.Instance{})
	unlisted.Listed, unlisted.Machine = false, nil
	if _, seen := silence(unlisted, time.Hour); !seen.Instance.SilentSince.IsZero() {
		t.Error("an engine that was not asked, because its backend did not answer, counts as silent")
	}

	// The server is down for an hour in the middle of a silence.
	_, seen := silence(syncing(dstack.Instance{}), 4*time.Minute)
	back := now.Add(time.Hour)
	var i dstack.Instance
	if step, i = decideInstance(t, seen, false, failure, back); step.To != dstack.InstanceUp || !i.SilentSince.Equal(back) {
		t.Errorf("silence counts while the engine was not asked: %+v, since %s", step, i.SilentSince)
	}
	if _, i = decideInstance(t, seen, true, nil, back); !i.SilentSince.IsZero() {
		t.Errorf("it answers and is silent since %s", i.SilentSince)
	}
	// A machine that was being created comes up during that hour.
	creating := syncing(dstack.Instance{Since: now})
	creating.Instance.Status = dstack.InstanceCreating
	if step, _ = decideInstance(t, creating, true, nil, back); step.To != dstack.InstanceUp {
		t.Errorf("a machine that is alive is given up: %+v", step)
	}
}

func TestRevise(t *testing.T) {
	served := func(run dstack.Run) dstack.Run { run.ReadyAt = now.Add(-time.Hour); return run }
	withCommand := func(command string) dstack.RunSpec {
		rs := aRun(2).Spec
		rs.Configuration.Commands = []string{command}
		return rs
	}
	first := &dstack.Revision{Num: 1, TemplateRevision: 1, Spec: withCommand("one")}
	for _, c := range []struct {
		name     string
		seen     lifecycle.ReviseFacts
		rollout  bool
		template int
		stable   int
		ready    bool
	}{
		{"in place it keeps the template and stays ready", lifecycle.ReviseFacts{Run: served(aRun(2))}, false, 2, 0, true},
		{"a rollout remembers what has served", lifecycle.ReviseFacts{Run: served(aRun(2))}, true, 3, 2, false},
		{"or serves since a moment ago", lifecycle.ReviseFacts{Run: aRun(2), HasReadyReplica: true}, true, 3, 2, false},
		{"what has not served is not remembered", lifecycle.ReviseFacts{Run: aRun(2)}, true, 3, 0, false},
		{"during an update the stable revision stays", lifecycle.ReviseFacts{Run: updating(2), HasReadyReplica: true}, true, 3, 1, false},
		{"back to the containers of the stable one, what serves stays", lifecycle.ReviseFacts{Run: updating(2), Stable: first}, true, 1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev := lifecycle.NewRevision{Present: 2, Spec: withCommand("one"), User: "ann", NeedsRollout: c.rollout}
			run, events, err := lifecycle.Revise(c.seen, rev, now)
			if err != nil || len(events) != 1 || events[0].Kind != dstack.EventApplied || events[0].User != "ann" {
				t.Fatalf("%+v, %v", events, err)
			}
			if run.Revision != 3 || run.LatestRevision != 3 || run.User != "ann" || run.TemplateRevision != c.template || run.StableRevision != c.stable || run.ReadyAt.IsZero() == c.ready {
				t.Errorf("got %+v", run)
			}
		})
	}
}

func TestRevise_KeepsTheDesiredReplicasInTheRange(t *testing.T) {
	rev := lifecycle.NewRevision{Present: 2, Spec: aRun(2).Spec, Restores: 1}
	rev.Spec.Configuration.Replicas = spec.Replicas{Min: 3, Max: 9}
	run, events, err := lifecycle.Revise(lifecycle.ReviseFacts{Run: aRun(2)}, rev, now)
	if err != nil || run.DesiredReplicas != 3 || !run.ScaledAt.Equal(now) || len(events) != 2 || events[1].Kind != dstack.EventScaled || events[1].From != "2" || events[1].To != "3" {
		t.Errorf("got %+v, %+v, %v", run, events, err)
	}
	if events[0].Message != "revision 3, in place, brings back revision 1" {
		t.Errorf("got %q", events[0].Message)
	}
	if run, _, _ = lifecycle.Revise(lifecycle.ReviseFacts{Run: aRun(5)}, rev, now); run.DesiredReplicas != 5 || !run.ScaledAt.IsZero() {
		t.Errorf("got %+v", run)
	}
}

func TestRevise_Refuses(t *testing.T) {
	for name, change := range map[string]func(*dstack.Run){
		"a run that has ended":              func(r *dstack.Run) { r.Status = dstack.RunFailed },
		"a run that another user changed":   func(r *dstack.Run) { r.Revision = 3 },
		"a run that is asked to stop":       func(r *dstack.Run) { r.Stop = dstack.StopGraceful },
		"a run whose replicas are to leave": func(r *dstack.Run) { r.Status = dstack.RunTerminating },
	} {
		run := aRun(1)
		change(&run)
		_, _, err := lifecycle.Revise(lifecycle.ReviseFacts{Run: run}, lifecycle.NewRevision{Present: 2}, now)
		if dstack.KindOf(err) != dstack.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
}
