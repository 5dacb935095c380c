package lifecycle_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// updating is a run whose revision 1 has served, at revision 2.
func updating(replicas int) dstack.Run {
	run := aRun(replicas)
	run.StableRevision = 1
	return run
}

func decideRun(t *testing.T, seen lifecycle.RunFacts) lifecycle.RunStep {
	t.Helper()
	step, err := lifecycle.DecideRun(seen, now)
	if err != nil {
		t.Fatal(err)
	}
	return step
}

// numsOf returns the numbers of new replicas.
func numsOf(added []lifecycle.NewNum) (nums []int) {
	for _, a := range added {
		nums = append(nums, a.Num)
	}
	return nums
}

func TestRun_Rolling(t *testing.T) {
	ready, starting, waiting, failed := dstack.ReplicaReady, dstack.ReplicaStarting, dstack.ReplicaWaiting, dstack.ReplicaFailed
	draining, unhealthy := dstack.ReplicaDraining, dstack.ReplicaUnhealthy
	blocked := func(r dstack.Replica) dstack.Replica { r.Blocked = true; return r }
	type all = []dstack.Replica
	type ids = []dstack.ReplicaID
	for _, c := range []struct {
		name     string
		wanted   int
		replicas all
		add      []int
		drop     ids
		drain    ids
		ready    bool
		back     int
	}{
		{name: "adds a new replica while outdated ones serve", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, ready)}, add: []int{0}},
		{name: "no outdated replica leaves before a new one is ready", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, ready), rep(0, 2, starting)}},
		{name: "then one leaves, and the next is added", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, ready), rep(0, 2, ready)}, add: []int{1}, drain: ids{"b-1"}},
		{name: "an outdated replica that does not serve leaves at once", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, starting)}, add: []int{0}, drop: ids{"b-1"}},
		{name: "where nothing serves all start at once", wanted: 3, replicas: all{rep(0, 1, starting)}, add: []int{0, 1, 2}, drop: ids{"a-1"}},
		{name: "an unhealthy replica counts as serving", wanted: 1, replicas: all{rep(0, 1, unhealthy)}, add: []int{0}},
		{name: "has taken over once all new replicas are ready", wanted: 1, replicas: all{rep(0, 1, ready), rep(0, 2, ready)}, drain: ids{"a-1"}, ready: true},
		{name: "a quarter of many starts at once", wanted: 8, replicas: all{
			rep(0, 1, ready), rep(1, 1, ready), rep(2, 1, ready), rep(3, 1, ready), rep(4, 1, ready), rep(5, 1, ready), rep(6, 1, ready), rep(7, 1, ready)}, add: []int{0, 1}},
		{name: "a blocked replica makes an outdated one leave", wanted: 1, replicas: all{rep(0, 1, ready), blocked(rep(0, 2, waiting))}, drain: ids{"a-1"}},
		{name: "only one for each blocked replica", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, draining), blocked(rep(0, 2, waiting))}},
		{name: "is rolled back when a new replica fails", wanted: 2, replicas: all{rep(0, 1, ready), rep(1, 1, ready), rep(0, 2, failed)}, back: 1},
		{name: "even when other new replicas are ready", wanted: 2, replicas: all{rep(1, 1, ready), rep(0, 2, ready), rep(1, 2, failed)}, back: 1},
		{name: "a sleeping service starts nothing", wanted: 0, replicas: nil},
		{name: "and drains outdated replicas", wanted: 0, replicas: all{rep(0, 1, ready)}, drain: ids{"a-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := decideRun(t, lifecycle.RunFacts{Run: updating(c.wanted), Replicas: c.replicas, DesiredReplicas: c.wanted})
			back := 0
			if step.Rollback != nil {
				back = step.Rollback.ToRevision
			}
			if step.To != dstack.RunActive || !slices.Equal(numsOf(step.Add), c.add) || !slices.Equal(step.Terminate, c.drop) ||
				!slices.Equal(step.Drain, c.drain) || step.Ready != c.ready || back != c.back {
				t.Errorf("got %+v", step)
			}
			if len(step.Drain) > 0 && (step.DrainTimeout != 30*time.Second || step.StopReason == "") {
				t.Errorf("drains for %s because of %q", step.DrainTimeout, step.StopReason)
			}
		})
	}
}

// A service that desires more replicas than the machines take can be updated.
func TestRun_TakesOverWithFewerPlacesThanDesired(t *testing.T) {
	homeless := rep(2, 2, dstack.ReplicaWaiting)
	homeless.Attempt, homeless.Instance = "", ""
	fresh := []dstack.Replica{rep(0, 2, dstack.ReplicaReady), rep(1, 2, dstack.ReplicaReady), homeless}
	if step := decideRun(t, lifecycle.RunFacts{Run: updating(3), Replicas: fresh, DesiredReplicas: 3}); !step.Ready {
		t.Errorf("not ready although all placed replicas are: %+v", step)
	}
	beside := append(fresh, rep(0, 1, dstack.ReplicaReady))
	if step := decideRun(t, lifecycle.RunFacts{Run: updating(3), Replicas: beside, DesiredReplicas: 3}); step.Ready {
		t.Errorf("ready although an outdated replica still has an allocation: %+v", step)
	}
	broken := append(fresh[:2:2], rep(2, 2, dstack.ReplicaStarting))
	if step := decideRun(t, lifecycle.RunFacts{Run: updating(3), Replicas: broken, DesiredReplicas: 3}); step.Ready {
		t.Errorf("ready although a replica is still starting: %+v", step)
	}
}

// Serving replicas are never ended because another revision failed, even if no
// revision is known to be stable.
func TestRun_IsNotGivenUpWhileAnythingServes(t *testing.T) {
	step := decideRun(t, lifecycle.RunFacts{Run: aRun(1), DesiredReplicas: 1,
		Replicas: []dstack.Replica{rep(0, 1, dstack.ReplicaReady), rep(0, 2, dstack.ReplicaFailed)}})
	if step.To != dstack.RunActive || len(step.Drain)+len(step.Terminate) > 0 {
		t.Errorf("got %+v", step)
	}
}

// A replica of the first revision becomes ready only after the second was
// applied, when nothing had served yet. The second fails: the run returns to
// the first, instead of staying at a revision that cannot work.
func TestRun_RollsBackToARevisionThatServedLate(t *testing.T) {
	late := rep(0, 1, dstack.ReplicaReady)
	late.ReadyAt = now
	seen := lifecycle.RunFacts{Run: aRun(1), DesiredReplicas: 1, Replicas: []dstack.Replica{late, rep(0, 2, dstack.ReplicaStarting)}}
	step := decideRun(t, seen)
	if step.StableRevision != 1 || step.Rollback != nil {
		t.Fatalf("while the second starts: %+v", step)
	}
	run := step.Apply(seen.Run, dstack.Revision{}, now)
	if run.StableRevision != 1 || !step.ChangesRun(seen.Run) {
		t.Fatalf("the run does not remember that revision 1 serves: %+v", run)
	}
	seen.Replicas[1].Status = dstack.ReplicaFailed
	if step = decideRun(t, seen); step.Rollback == nil || step.Rollback.ToRevision != 1 {
		t.Errorf("once the second has failed: %+v", step)
	}
}

func TestRun_ARollbackSaysWhy(t *testing.T) {
	broken := rep(0, 2, dstack.ReplicaFailed)
	broken.Reason, broken.PastAttempts = "exited with code 1", []dstack.Attempt{{LastOutput: []string{"boom"}}}
	seen := lifecycle.RunFacts{Run: updating(1), Replicas: []dstack.Replica{rep(0, 1, dstack.ReplicaReady), broken}, DesiredReplicas: 1}
	step := decideRun(t, seen)
	if !step.Due.Equal(now) {
		t.Error("the run is not due at once to add the missing replicas")
	}
	if step.Rollback == nil || step.Rollback.Reason != broken.Reason || step.Rollback.LastOutput[0] != "boom" || len(step.Drain)+len(step.Terminate) > 0 {
		t.Errorf("got %+v", step)
	}
	events := lifecycle.BuildRunEvents(seen, step, now)
	if len(events) != 1 || events[0].Kind != dstack.EventRolledBack || events[0].From != "2" || events[0].To != "1" || !strings.Contains(events[0].Message, "exited with code 1") {
		t.Errorf("events: %+v", events)
	}
}

func TestRun_Scaling(t *testing.T) {
	ready, starting, waiting, draining := dstack.ReplicaReady, dstack.ReplicaStarting, dstack.ReplicaWaiting, dstack.ReplicaDraining
	run := aRun(3)
	run.ReadyAt = now.Add(-time.Hour)
	type all = []dstack.Replica
	type ids = []dstack.ReplicaID
	for _, c := range []struct {
		name     string
		wanted   int
		replicas all
		inFlight map[dstack.ReplicaID]int
		add      []int
		drop     ids
		drain    ids
	}{
		{name: "adds replicas with the lowest free numbers", wanted: 3, replicas: all{rep(1, 2, ready)}, add: []int{0, 2}},
		{name: "not with the number of a leaving replica", wanted: 2, replicas: all{rep(0, 2, draining), rep(1, 2, ready)}, add: []int{2}},
		{name: "the replica with the fewest requests leaves", wanted: 1, replicas: all{rep(0, 2, ready), rep(1, 2, ready)},
			inFlight: map[dstack.ReplicaID]int{"a-2": 1, "b-2": 3}, drain: ids{"a-2"}},
		{name: "among equals the highest number", wanted: 1, replicas: all{rep(0, 2, ready), rep(1, 2, ready)}, drain: ids{"b-2"}},
		{name: "replicas that are not ready leave first", wanted: 1, replicas: all{rep(0, 2, starting), rep(1, 2, ready), rep(2, 2, waiting)}, drop: ids{"c-2", "a-2"}},
		{name: "to zero", wanted: 0, replicas: all{rep(0, 2, ready)}, drain: ids{"a-2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := decideRun(t, lifecycle.RunFacts{Run: run, Replicas: c.replicas, DesiredReplicas: c.wanted, ScaleReason: "so", InFlight: c.inFlight})
			if !slices.Equal(numsOf(step.Add), c.add) || !slices.Equal(step.Terminate, c.drop) || !slices.Equal(step.Drain, c.drain) || step.DesiredReplicas != c.wanted {
				t.Errorf("got %+v", step)
			}
		})
	}
}

func TestRun_MaxDurationEndsItWithItsOwnReason(t *testing.T) {
	run := aRun(1)
	run.Spec.Configuration.MaxDuration = &spec.MaxDuration{Seconds: 7200}
	seen := lifecycle.RunFacts{Run: run, Replicas: []dstack.Replica{rep(0, 2, dstack.ReplicaReady)}, DesiredReplicas: 1}
	run.Spec.Configuration.MaxDuration.Seconds = 5
	if step := decideRun(t, seen); !step.Started || !step.Due.Equal(now.Add(5*time.Second)) {
		t.Errorf("nothing looks at it when its time is over: %+v", step)
	}
	run.Spec.Configuration.MaxDuration.Seconds = 7200
	if step := decideRun(t, seen); !step.Started || step.To != dstack.RunActive {
		t.Errorf("with a machine: %+v", step)
	}
	seen.Run.StartedAt = now.Add(-2*time.Hour + 10*time.Second)
	if step := decideRun(t, seen); step.To != dstack.RunActive || !step.Due.Equal(now.Add(10*time.Second)) {
		t.Errorf("before it is over: %+v", step)
	}
	seen.Run.StartedAt = now.Add(-2 * time.Hour)
	step := decideRun(t, seen)
	if step.To != dstack.RunTerminating || step.Ending != dstack.EndDuration || step.Reason != "it ran for its max_duration, 2h" || len(step.Drain) != 1 {
		t.Errorf("when it is over: %+v", step)
	}
	seen.Run.Spec.Configuration.MaxDuration = &spec.MaxDuration{Off: true}
	if step := decideRun(t, seen); step.To != dstack.RunActive {
		t.Errorf("when it is off: %+v", step)
	}
}

// A later time would look to the store as written before the clock was set back.
func TestRun_IsNotDueTooFarAhead(t *testing.T) {
	seen := lifecycle.RunFacts{Run: aRun(1), DesiredReplicas: 1, ScaleDue: now.Add(10 * time.Minute)}
	if step := decideRun(t, seen); !step.Due.Equal(now.Add(time.Minute)) {
		t.Errorf("due in %s", step.Due.Sub(now))
	}
}
