package lifecycle_test

import (
	"slices"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var now = time.Unix(1e9, 0).UTC()

func aRun(replicas int) dstack.Run {
	run := dstack.Run{ID: "run", Name: "run", Status: dstack.RunActive, Revision: 2, LatestRevision: 2, TemplateRevision: 2, DesiredReplicas: replicas}
	run.Spec.Configuration.Replicas = spec.Replicas{Min: replicas, Max: replicas}
	run.Spec.Configuration.Port.Container = 8000
	return run
}

func rep(num, revision int, status dstack.ReplicaStatus) dstack.Replica {
	return dstack.Replica{
		ID: dstack.ReplicaID(string(rune('a'+num)) + "-" + string(rune('0'+revision))), Num: num, Revision: revision, TemplateRevision: revision,
		Status: status, Instance: "i", Attempt: "try", Since: now.Add(-time.Minute), AttemptAt: now.Add(-time.Minute), Reason: "why",
	}
}

func TestRun(t *testing.T) {
	ready, starting, failed, waiting := dstack.ReplicaReady, dstack.ReplicaStarting, dstack.ReplicaFailed, dstack.ReplicaWaiting
	terminating := dstack.ReplicaTerminating
	served := func(r dstack.Run) dstack.Run { r.ReadyAt = now; return r }
	stopped := func(r dstack.Run, how dstack.StopRequest) dstack.Run { r.Stop = how; return r }
	ending := func(r dstack.Run, why dstack.Ending) dstack.Run {
		r.Status, r.Ending = dstack.RunTerminating, why
		return r
	}
	noAttempt := rep(0, 2, failed)
	noAttempt.Attempt = ""

	for _, c := range []struct {
		name     string
		run      dstack.Run
		replicas []dstack.Replica
		to       dstack.RunStatus
		add      []int
		drop     []dstack.ReplicaID
		drain    []dstack.ReplicaID
		ready    bool
		ending   dstack.Ending
	}{
		{name: "adds missing replicas", run: aRun(3), replicas: []dstack.Replica{rep(1, 2, starting)}, to: dstack.RunActive, add: []int{0, 2}},
		{name: "leaves a full set alone", run: aRun(1), replicas: []dstack.Replica{rep(0, 2, starting)}, to: dstack.RunActive},
		{name: "is ready with the first ready replica", run: aRun(2), replicas: []dstack.Replica{rep(0, 2, ready), rep(1, 2, waiting)}, to: dstack.RunActive, ready: true},
		{name: "does not reuse the number of a terminating replica", run: aRun(1), replicas: []dstack.Replica{rep(0, 2, terminating)}, to: dstack.RunActive, add: []int{1}},
		{name: "gives up when no replica was or can become ready", run: aRun(2), replicas: []dstack.Replica{rep(0, 2, failed), rep(1, 2, failed)}, to: dstack.RunTerminating, ending: dstack.EndFailed},
		{name: "waits while another replica may become ready", run: aRun(2), replicas: []dstack.Replica{rep(0, 2, failed), rep(1, 2, starting)}, to: dstack.RunActive},
		{name: "ends with no_capacity when no machine suited", run: aRun(1), replicas: []dstack.Replica{noAttempt}, to: dstack.RunTerminating, ending: dstack.EndNoCapacity},
		{name: "a failed replica does not end a run with a ready one", run: aRun(2), replicas: []dstack.Replica{rep(0, 2, failed), rep(1, 2, ready)}, to: dstack.RunActive, add: []int{0}, ready: true},
		{name: "nor a run that has served", run: served(aRun(1)), replicas: []dstack.Replica{rep(0, 2, failed)}, to: dstack.RunActive, add: []int{0}},
		{name: "a failure of an older revision does not count", run: aRun(1), replicas: []dstack.Replica{rep(0, 1, failed)}, to: dstack.RunActive, add: []int{0}},
		{name: "a stop drains ready replicas", run: stopped(aRun(2), dstack.StopGraceful), replicas: []dstack.Replica{rep(0, 2, ready), rep(1, 2, terminating)}, to: dstack.RunTerminating, drain: []dstack.ReplicaID{"a-2"}, ending: dstack.EndStopped},
		{name: "an abort terminates ready replicas", run: stopped(aRun(1), dstack.StopAbort), replicas: []dstack.Replica{rep(0, 2, ready)}, to: dstack.RunTerminating, drop: []dstack.ReplicaID{"a-2"}, ending: dstack.EndAborted},
		{name: "waits for the last replica", run: ending(aRun(1), dstack.EndStopped), replicas: []dstack.Replica{rep(0, 2, terminating)}, to: dstack.RunTerminating, ending: dstack.EndStopped},
		{name: "terminates a replica that still starts", run: ending(aRun(1), dstack.EndStopped), replicas: []dstack.Replica{rep(0, 2, starting)}, to: dstack.RunTerminating, drop: []dstack.ReplicaID{"a-2"}, ending: dstack.EndStopped},
		{name: "is terminated after a stop", run: ending(aRun(1), dstack.EndStopped), to: dstack.RunTerminated, ending: dstack.EndStopped},
		{name: "is failed after a failure", run: ending(aRun(1), dstack.EndFailed), replicas: []dstack.Replica{rep(0, 2, failed)}, to: dstack.RunFailed, ending: dstack.EndFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: c.run, Replicas: c.replicas, DesiredReplicas: c.run.DesiredReplicas}, now)
			if err != nil {
				t.Fatal(err)
			}
			if step.To != c.to || !slices.Equal(numsOf(step.Add), c.add) || !slices.Equal(step.Terminate, c.drop) || !slices.Equal(step.Drain, c.drain) || step.Ready != c.ready || step.Ending != c.ending {
				t.Errorf("got %+v", step)
			}
		})
	}
}

// An abort during a graceful stop terminates the rest without a grace period.
func TestRun_AbortDuringAStop(t *testing.T) {
	run := aRun(1)
	run.Status, run.Stop, run.Ending = dstack.RunTerminating, dstack.StopAbort, dstack.EndStopped
	gentle := rep(0, 2, dstack.ReplicaTerminating)
	gentle.Graceful = true
	step, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{gentle}}, now)
	if err != nil || step.Graceful || !slices.Equal(step.Terminate, []dstack.ReplicaID{gentle.ID}) {
		t.Errorf("got %+v, %v", step, err)
	}
}

// A run that begins to terminate may have no replica that would mark it due.
func TestRun_IsDueAtOnceWhenItBeginsToTerminate(t *testing.T) {
	stopped := aRun(1)
	stopped.Stop = dstack.StopGraceful
	for _, seen := range []lifecycle.RunFacts{{Run: stopped}, {Run: aRun(1), Replicas: []dstack.Replica{rep(0, 2, dstack.ReplicaFailed)}}} {
		if step, err := lifecycle.DecideRun(seen, now); err != nil || step.To != dstack.RunTerminating || !step.Due.Equal(now) {
			t.Errorf("got %+v, %v", step, err)
		}
	}
}

func TestUnknownStatusIsAnError(t *testing.T) {
	if _, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: dstack.Run{Status: "new"}}, now); err == nil {
		t.Error("a run of an unknown status was stepped")
	}
	if _, err := lifecycle.DecideReplica(lifecycle.ReplicaFacts{Replica: dstack.Replica{Status: "new"}}, now); err == nil {
		t.Error("a replica of an unknown status was stepped")
	}
	if _, err := lifecycle.DecideInstance(lifecycle.InstanceFacts{Instance: dstack.Instance{Status: "new"}}, now); err == nil {
		t.Error("an instance of an unknown status was stepped")
	}
}

func TestFinishedIsFinal(t *testing.T) {
	for _, status := range []dstack.RunStatus{dstack.RunTerminated, dstack.RunFailed} {
		run := aRun(2)
		run.Status, run.Stop = status, dstack.StopGraceful
		step, err := lifecycle.DecideRun(lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{rep(0, 2, dstack.ReplicaFailed)}}, now)
		if err != nil || step.To != status || len(step.Add)+len(step.Terminate) > 0 {
			t.Errorf("%s: got %+v, %v", status, step, err)
		}
	}
	for _, status := range []dstack.ReplicaStatus{dstack.ReplicaTerminated, dstack.ReplicaFailed} {
		seen := lifecycle.ReplicaFacts{
			Replica: rep(0, 2, status), Run: aRun(1), Report: &dstack.Report{State: dstack.AttemptRunning, Ready: true},
			Placements: []dstack.Placement{{}},
		}
		step, err := lifecycle.DecideReplica(seen, now)
		if err != nil || step.To != status || step.Placement != nil || step.NewAttempt {
			t.Errorf("%s: got %+v, %v", status, step, err)
		}
	}
}
