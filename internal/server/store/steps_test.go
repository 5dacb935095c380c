package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func TestPlacement_NothingIsClaimedTwice(t *testing.T) {
	gpu := func(id string) dstack.Claim { return dstack.Claim{GPUs: []dstack.GPU{{ID: id}}} }
	for _, c := range []struct {
		name           string
		first, second  dstack.Claim
		secondIsPlaced bool
	}{
		{"the same GPU", gpu("GPU-a"), gpu("GPU-a"), false},
		{"another GPU", gpu("GPU-a"), gpu("GPU-b"), true},
		{"the same port", dstack.Claim{Ports: []int{8000}}, dstack.Claim{Ports: []int{8000}}, false},
		{"another port", dstack.Claim{Ports: []int{8000}}, dstack.Claim{Ports: []int{8001}}, true},
		{"a GPU and a port of one number", gpu("8000"), dstack.Claim{Ports: []int{8000}}, true},
		{"too many CPUs", dstack.Claim{CPUs: 3}, dstack.Claim{CPUs: 2}, false},
		{"all CPUs", dstack.Claim{CPUs: 2}, dstack.Claim{CPUs: 2}, true},
		{"too much memory", dstack.Claim{MemoryMiB: 8000}, dstack.Claim{MemoryMiB: 193}, false},
		{"too much disk", dstack.Claim{DiskMiB: 1 << 20}, dstack.Claim{DiskMiB: 1}, false},
		{"all memory, and no claim", dstack.Claim{MemoryMiB: 8192}, dstack.Claim{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, h *fixture) {
				_, a := h.replica("a", t0)
				run, b := h.replica("b", t0)
				h.replicaStep(a.ID, placed(c.first), t0)
				err := h.tryReplicaStep(b.ID, placed(c.second), t0)
				if c.secondIsPlaced {
					h.noError(err)
					return
				}
				h.wantKind(dstack.Conflict, err)
				if _, b = h.reread(run.ID); b.Status != dstack.ReplicaWaiting || b.Attempt != "" {
					t.Errorf("half of a refused placement was done: %+v", b)
				}
			})
		})
	}
}

func TestPlacement_CreatesTheInstanceOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, a := h.replica("a", t0)
		h.replicaStep(a.ID, placed(dstack.Claim{CPUs: 1, GPUs: []dstack.GPU{{ID: "GPU-a"}}, Ports: []int{8000}}), t0)
		w := h.details(run.ID)
		want := dstack.Instance{ID: "local-box", Backend: "local", Offer: box(), Status: dstack.InstanceCreating, Since: t0, Host: "here", IdleTime: 5 * time.Minute, Version: 1}
		if diff := cmp.Diff(want, w.Instances["local-box"]); diff != "" {
			t.Error(diff)
		}
		r := w.Replicas[0]
		if r.Status != dstack.ReplicaStarting || r.Instance != "local-box" || r.Attempt == "" || r.AttemptNum != 0 || !r.AttemptAt.Equal(t0) {
			t.Errorf("got %+v", r)
		}
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp}, nil, nil, t0)

		_, b := h.replica("b", t0)
		step := placed(dstack.Claim{CPUs: 1})
		step.Placement.Offer.Hardware.CPUs = 16
		h.replicaStep(b.ID, step, t0)
		again := h.details(run.ID).Instances["local-box"]
		if again.Status != dstack.InstanceUp || again.Offer.Hardware.CPUs != 16 {
			t.Errorf("got %+v", again)
		}
		used, err := h.s.Allocations(t.Context(), h.project.ID)
		h.noError(err)
		held := map[dstack.InstanceID]dstack.Allocation{"local-box": {
			CPUs: 2, GPUs: map[string]string{"GPU-a": "a replica 0"}, Ports: map[int]string{8000: "a replica 0"},
			Runs: []dstack.RunShare{
				{Run: run.ID, Template: 1, Replicas: 1, Holder: "a", HasSizes: true},
				{Run: b.Run, Template: 1, Replicas: 1, Holder: "b", HasSizes: true},
			},
		}}
		inOrder := cmpopts.SortSlices(func(a, b dstack.RunShare) bool { return a.Run < b.Run })
		if diff := cmp.Diff(held, used, inOrder); diff != "" {
			t.Error(diff)
		}
		used, err = h.s.Allocations(t.Context(), "another project")
		h.noError(err)
		held["local-box"].GPUs["GPU-a"], held["local-box"].Ports[8000] = "a run of another project", "a run of another project"
		for i := range held["local-box"].Runs {
			held["local-box"].Runs[i].Holder = "a run of another project"
		}
		if diff := cmp.Diff(held, used, inOrder); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPlacement_RentsAnInstancePerReplica(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("a", t0)
		step := placed(dstack.Claim{})
		step.Placement.Offer.OwnedInstance, step.Placement.Offer.Host, step.Placement.Offer.Key = "", "", "cloud"
		h.replicaStep(r.ID, step, t0)
		w := h.details(run.ID)
		got := w.Instances[w.Replicas[0].Instance]
		if got.ID == "" || got.Backend != "cloud" || got.Host != "" || got.Status != dstack.InstanceCreating {
			t.Errorf("got %+v", got)
		}
	})
}

func TestPlacement_AFinishedReplicaFreesItsClaim(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		claim := dstack.Claim{CPUs: 4, GPUs: []dstack.GPU{{ID: "GPU-a"}}, Ports: []int{8000}}
		_, a := h.replica("a", t0)
		_, b := h.replica("b", t0)
		h.replicaStep(a.ID, placed(claim), t0)
		h.replicaStep(a.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
		h.replicaStep(b.ID, placed(claim), t0)
	})
}

func TestReplicaStep_WaitsAgainAfterItsMachineIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("a", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{GPUs: []dstack.GPU{{ID: "GPU-a"}}}), t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaWaiting, Reason: "its machine is gone", Due: t0}, t0)
		_, first := h.reread(run.ID)
		if first.Instance != "" || len(first.Claim.GPUs) > 0 {
			t.Errorf("it still holds %v of %s", first.Claim, first.Instance)
		}
		h.replicaStep(r.ID, placed(dstack.Claim{GPUs: []dstack.GPU{{ID: "GPU-a"}}}), t0)
		if _, second := h.reread(run.ID); second.AttemptNum != 1 || second.Attempt == first.Attempt {
			t.Errorf("got %+v", second)
		}
	})
}

func TestAttempts_TheLatestAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		run, r := h.replica("a", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		var ids []dstack.AttemptID
		for i := range 25 {
			_, r = h.reread(run.ID)
			ids = append(ids, r.Attempt)
			past := &dstack.Attempt{ID: r.Attempt, Num: r.AttemptNum, StartedAt: r.AttemptAt, EndedAt: t0}
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, EndedAttempt: past, Crashes: i + 1, Due: t0}, t0)
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true, Crashes: i + 1, Due: t0}, t0)
		}
		_, r = h.reread(run.ID)
		if len(r.PastAttempts) != 20 || r.PastAttempts[19].Num != 24 || r.PastAttempts[0].ID != ids[5] || r.AttemptNum != 25 {
			t.Errorf("it remembers %d attempts, %d to %d, and is at %d", len(r.PastAttempts), r.PastAttempts[0].Num, r.PastAttempts[19].Num, r.AttemptNum)
		}
		for _, a := range append(ids[5:], r.Attempt) {
			of, replica, err := h.s.AttemptOf(ctx, h.project.ID, "a", a)
			if err != nil || of.ID != run.ID || replica.ID != r.ID {
				t.Fatalf("%s is of %s/%s (%v)", a, of.ID, replica.ID, err)
			}
			if of, err := h.s.RunOfAttempt(ctx, a); err != nil || of.ID != run.ID || of.Project != h.project.Name || of.Spec.SSHKeyPub == "" {
				t.Fatalf("%s is of %+v (%v)", a, of, err)
			}
		}
		_, err := h.s.RunOfAttempt(ctx, ids[4])
		h.wantKind(dstack.NotFound, err)
		_, err = h.s.RunOfAttempt(ctx, dstack.AttemptID(r.ID))
		h.wantKind(dstack.NotFound, err)
		_, _, err = h.s.AttemptOf(ctx, h.project.ID, "a", ids[4])
		h.wantKind(dstack.NotFound, err)
		_, _, err = h.s.AttemptOf(ctx, h.project.ID, "b", r.Attempt)
		h.wantKind(dstack.NotFound, err)
		_, _, err = h.s.AttemptOf(ctx, "another project", "a", r.Attempt)
		h.wantKind(dstack.NotFound, err)
	})
}

func TestRunStep_ReadyAtOnceAndSinceOnChange(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("a", t0)
		for i, c := range []struct {
			step         lifecycle.RunStep
			ready, since time.Duration // after t0; negative: zero time
		}{
			{lifecycle.RunStep{To: dstack.RunActive}, -1, 0},
			{lifecycle.RunStep{To: dstack.RunActive, Ready: true}, 1, 0},
			{lifecycle.RunStep{To: dstack.RunActive, Ready: true}, 1, 0},
			{lifecycle.RunStep{To: dstack.RunActive}, 1, 0},
			{lifecycle.RunStep{To: dstack.RunTerminating, Reason: "why", Ending: dstack.EndStopped}, 1, 4},
		} {
			now := t0.Add(time.Duration(i) * time.Second)
			c.step.Due = now
			h.runStep(run.ID, c.step, now)
			got := h.details(run.ID).Run
			ready := time.Time{}
			if c.ready >= 0 {
				ready = t0.Add(c.ready * time.Second)
			}
			if !got.ReadyAt.Equal(ready) || !got.Since.Equal(t0.Add(c.since*time.Second)) || got.Status != c.step.To || got.Ending != c.step.Ending || got.Reason != c.step.Reason {
				t.Errorf("step %d: got %+v", i, got)
			}
		}
	})
}

func TestRunStep_AddsOneOfEachNumber(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.replica("a", t0)
		l := h.claim(store.Runs, string(run.ID), t0)
		seen, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		h.wantKind(dstack.Conflict, h.s.SaveRunStep(t.Context(), l, seen, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(1, 0)}, t0))
		if n := len(h.details(run.ID).Replicas); n != 1 {
			t.Errorf("a refused step left %d replicas", n)
		}
	})
}

func TestRunStep_TerminateOnlyShortensTheGracePeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("a", t0)
		for i, c := range []struct{ grace, want bool }{{true, true}, {false, false}, {true, false}} {
			now := t0.Add(time.Duration(i) * time.Second)
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{r.ID}, Graceful: c.grace, StopReason: "stopped", Due: now}, now)
			if _, r = h.reread(run.ID); r.Graceful != c.want || !r.Since.Equal(t0) || r.Status != dstack.ReplicaTerminating {
				t.Errorf("step %d: got %+v", i, r)
			}
		}
	})
}

func TestRunFacts_UnfinishedAndFailedReplicas(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("a", t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaFailed}, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0, 1), Due: t0}, t0)
		count := func() int {
			seen, err := h.s.RunFacts(t.Context(), run.ID)
			h.noError(err)
			return len(seen.Replicas)
		}
		if n := count(); n != 3 {
			t.Errorf("%d replicas, want two live replicas and the failed one", n)
		}
		_, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: runSpec("a"), User: "admin", NeedsRollout: true, Now: t0})
		h.noError(err)
		if n := count(); n != 2 {
			t.Errorf("%d replicas, want the two that live", n)
		}
		_, err = h.s.RunFacts(t.Context(), "nothing")
		h.wantKind(dstack.NotFound, err)
		_, err = h.s.ReplicaFacts(t.Context(), "nothing")
		h.wantKind(dstack.NotFound, err)
		_, err = h.s.InstanceFacts(t.Context(), "nothing")
		h.wantKind(dstack.NotFound, err)
	})
}

func TestReports_AMissingAttemptIsAbsent(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("a", "127.0.0.1:1", t0)
		up := func(reports []dstack.Report, sec int) bool {
			now := t0.Add(time.Duration(sec) * time.Second)
			return h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0}, reports, nil, now)
		}
		report := func() dstack.Report { return h.details(run.ID).Reports[r.Attempt] }

		if up(h.mergeReports(), 1) || !report().At.Equal(t0) {
			t.Error("the same report again is a change")
		}
		if up(nil, 2) || report().State != dstack.AttemptRunning {
			t.Error("an engine that does not answer says that nothing runs")
		}
		if !up([]dstack.Report{}, 3) || report().State != dstack.AttemptAbsent || !report().At.Equal(t0.Add(3*time.Second)) {
			t.Errorf("an engine that is silent on an attempt: %+v", report())
		}
		if up([]dstack.Report{}, 4) || !report().At.Equal(t0.Add(3*time.Second)) {
			t.Error("silence again is a change")
		}
		// The replica terminates: only an answer after that ends it.
		h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopGraceful, "admin", t0))
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{r.ID}}, t0.Add(5*time.Second))
		if !up([]dstack.Report{}, 6) || !report().At.Equal(t0.Add(6*time.Second)) {
			t.Errorf("silence after the replica changed: %+v", report())
		}
		if up([]dstack.Report{{Attempt: "an orphan", State: dstack.AttemptRunning}}, 7) {
			t.Error("a report of an attempt that is not placed is a change")
		}
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(7*time.Second))
		if up([]dstack.Report{}, 8) || len(h.details(run.ID).Reports) > 0 {
			t.Error("a report of a finished replica is left")
		}
	})
}

func TestReports_OnlyOfPlacedAttempts(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("a", "127.0.0.1:1", t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaReady, Due: t0}, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true}, t0)
		_, again := h.reread(run.ID)
		starting := dstack.Report{Attempt: again.Attempt, State: dstack.AttemptStarting}
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp}, []dstack.Report{running(r.Attempt, "127.0.0.1:1"), starting}, nil, t0)
		seen, err := h.s.InstanceFacts(t.Context(), "local-box")
		h.noError(err)
		if len(seen.Reports) != 1 || seen.Reports[0].Attempt != again.Attempt {
			t.Errorf("got the reports %+v", seen.Reports)
		}
	})
}

// An attempt that was placed after the engine was asked is not absent.
func TestReports_AnAttemptPlacedMeanwhileIsNotAbsent(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.ready("a", "127.0.0.1:1", t0)
		l := h.claim(store.Instances, "local-box", t0)
		seen, err := h.s.InstanceFacts(t.Context(), "local-box")
		h.noError(err)
		run, b := h.replica("b", t0)
		h.replicaStep(b.ID, placed(dstack.Claim{}), t0)
		_, b = h.reread(run.ID)
		_, err = h.s.SaveInstanceStep(t.Context(), l, seen, lifecycle.InstanceStep{To: dstack.InstanceUp}, h.mergeReports(), nil, t0.Add(time.Second))
		h.noError(err)
		if rep, ok := h.details(run.ID).Reports[b.Attempt]; ok {
			t.Errorf("it has the report %+v", rep)
		}
		if !h.isDue(store.Instances, "local-box", t0) {
			t.Error("the engine is not asked again at once")
		}
	})
}

// A terminating replica ends only when the engine was asked after the decision.
func TestReports_AReplicaTerminatedMeanwhileIsNotAbsent(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("a", "127.0.0.1:1", t0)
		l := h.claim(store.Instances, "local-box", t0)
		seen, err := h.s.InstanceFacts(t.Context(), "local-box")
		h.noError(err)
		h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopGraceful, "admin", t0))
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{r.ID}}, t0.Add(time.Second))
		_, err = h.s.SaveInstanceStep(t.Context(), l, seen, lifecycle.InstanceStep{To: dstack.InstanceUp}, []dstack.Report{}, nil, t0.Add(2*time.Second))
		h.noError(err)
		if rep := h.details(run.ID).Reports[r.Attempt]; rep.State != dstack.AttemptRunning {
			t.Errorf("it has the report %+v", rep)
		}
		if !h.isDue(store.Instances, "local-box", t0.Add(time.Second)) {
			t.Error("the engine is not asked again at once")
		}
	})
}

func TestInstanceStep_CountsFailuresAndAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.ready("a", "127.0.0.1:1", t0)
		fail := errors.New("no route to host")
		for i, c := range []struct {
			sec      int
			fail     error
			fails    int
			answered int // seconds after t0
		}{
			{1, nil, 0, 1}, {30, nil, 0, 30}, {40, fail, 1, 30}, {41, fail, 2, 30}, {42, nil, 0, 42}, {43, nil, 0, 43},
		} {
			reports := h.mergeReports()
			if c.fail != nil {
				reports = nil
			}
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0},
				reports, c.fail, t0.Add(time.Duration(c.sec)*time.Second))
			got := h.details(run.ID).Instances["local-box"]
			want := map[bool]string{true: "no route to host"}[c.fail != nil]
			if got.ConsecutiveFailures != c.fails || got.LastError != want ||
				!got.LastResponseAt.Equal(t0.Add(time.Duration(c.answered)*time.Second)) {
				t.Errorf("step %d: %d failures (%q), answered at %v",
					i, got.ConsecutiveFailures, got.LastError, got.LastResponseAt)
			}
		}
	})
}

// Many concurrent passes on one machine: no deadlock lasts, and nothing is lost.
func TestSteps_Concurrently(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		const n = 12
		var runs []dstack.Run
		for i := range n {
			run, _ := h.replica(fmt.Sprintf("run-%d", i), t0)
			runs = append(runs, run)
		}
		done := make(chan error, n)
		for _, l := range h.due(store.Replicas, t0) {
			go func() {
				seen, err := h.s.ReplicaFacts(t.Context(), dstack.ReplicaID(l.ID))
				if err == nil {
					err = h.s.SaveReplicaStep(t.Context(), l, seen, placed(dstack.Claim{}), t0)
				}
				done <- err
			}()
		}
		for range n {
			h.noError(<-done)
		}
		for _, run := range runs {
			if _, r := h.reread(run.ID); r.Instance != "local-box" {
				t.Errorf("%s is not placed", run.Name)
			}
		}
	})
}
