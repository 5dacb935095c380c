package store_test

import (
	"math"
	"testing"
	"time"

	"dstack/internal/decide/cost"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// machineStep saves a step of a rented machine that its backend lists, or not.
func (h *fixture) machineStep(id dstack.InstanceID, to dstack.InstanceStatus, isListed bool, now time.Time) {
	h.t.Helper()
	l := h.claim("instances", string(id), now)
	seen, err := h.s.InstanceFacts(h.ctx(), id)
	h.noError(err)
	if seen.Listed = true; isListed {
		seen.Machine = &dstack.Machine{State: dstack.MachineRunning}
	}
	_, err = h.s.SaveInstanceStep(h.ctx(), l, seen, lifecycle.InstanceStep{To: to, Due: now}, nil, nil, now)
	h.noError(err)
}

// A rental lasts from the request to the end that the backend shows, and knows which run had the machine when.
func TestRentals_FollowAMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("first", t0)
		h.replicaStep(r.ID, rentedPlacement(), t0)
		_, r = h.reread(run.ID)
		id := r.Instance
		read := func(now time.Time) dstack.Rental {
			t.Helper()
			found, err := h.s.Rentals(h.ctx(), t0, h.project.ID)
			h.noError(err)
			if len(found) != 1 || found[0].Instance != id {
				t.Fatalf("got %+v", found)
			}
			return found[0]
		}
		if got := read(t0); got.Price != 0.8 || got.Backend != "aws" || got.ProjectName != "Main" || !got.SeenAt.IsZero() || !got.RequestedAt.Equal(t0) {
			t.Errorf("requested: %+v", got)
		}
		h.machineStep(id, dstack.InstanceCreating, true, t0.Add(time.Minute))
		h.machineStep(id, dstack.InstanceUp, true, t0.Add(2*time.Minute))
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(time.Hour))
		h.machineStep(id, dstack.InstanceUp, true, t0.Add(time.Hour))

		idle, err := h.s.IdleInstances(h.ctx(), h.project.ID)
		h.noError(err)
		_, second := h.replica("second", t0.Add(2*time.Hour))
		h.replicaStep(second.ID, onIdle(idle[0]), t0.Add(2*time.Hour))
		h.machineStep(id, dstack.InstanceUp, true, t0.Add(2*time.Hour))
		h.restart()
		h.replicaStep(second.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(3*time.Hour))
		h.machineStep(id, dstack.InstanceDeleting, true, t0.Add(3*time.Hour))
		h.machineStep(id, dstack.InstanceDeleting, false, t0.Add(3*time.Hour+30*time.Second))
		if got := read(t0.Add(3*time.Hour + 31*time.Second)); !got.EndedAt.Equal(t0.Add(3*time.Hour + 30*time.Second)) {
			t.Errorf("not listed any more, but not confirmed yet: %+v", got)
		}
		h.machineStep(id, dstack.InstanceDeleting, true, t0.Add(3*time.Hour+40*time.Second))
		if got := read(t0.Add(3*time.Hour + 41*time.Second)); !got.EndedAt.IsZero() {
			t.Errorf("listed again: %+v", got)
		}
		h.machineStep(id, dstack.InstanceDeleting, false, t0.Add(3*time.Hour+time.Minute))
		h.machineStep(id, dstack.InstanceDeleted, false, t0.Add(3*time.Hour+2*time.Minute))

		now := t0.Add(10 * time.Hour)
		got := read(now)
		if !got.SeenAt.Equal(t0.Add(time.Minute)) || !got.EndedAt.Equal(t0.Add(3*time.Hour+time.Minute)) || len(got.Uses) != 2 {
			t.Fatalf("ended: %+v", got)
		}
		lines := cost.Sum([]dstack.Rental{got}, cost.ByRun, t0, now)
		want := map[string]float64{"first": 0.8, "second": 0.8, cost.Idle: 0.8 * 61 / 60}
		for _, line := range lines {
			if math.Abs(line.Cost-want[line.Name]) > 1e-6 || line.Machines != 0 {
				t.Errorf("%+v, want %v", line, want)
			}
		}
		if later, err := h.s.Rentals(h.ctx(), now); err != nil || len(later) != 0 || len(lines) != 3 {
			t.Errorf("%+v, %v; lines %+v", later, err, lines)
		}
	})
}

// A machine above the budget of its project is not rented, also when two placements were decided on the same facts.
func TestRentals_ABudgetRefusesNewMachines(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		left := cost.Midnight(t0).AddDate(0, 0, 1).Sub(t0).Hours()
		h.s.SetBudgets(map[string]float64{"main": 0.8*left*1.5 + 0.001})
		if b, has, err := h.s.Budget(h.ctx(), h.project.ID, t0); err != nil || !has || b.Committed != 0 {
			t.Errorf("%+v, %v, %v", b, has, err)
		}
		_, a := h.replica("a", t0)
		_, b := h.replica("b", t0)
		h.replicaStep(a.ID, rentedPlacement(), t0)
		h.wantKind(dstack.Conflict, h.tryReplicaStep(b.ID, rentedPlacement(), t0))
		budget, _, err := h.s.Budget(h.ctx(), h.project.ID, t0)
		h.noError(err)
		if budget.Refuse(0.8) == "" || math.Abs(budget.Committed-0.8*left) > 1e-6 {
			t.Errorf("%+v", budget)
		}
		h.s.SetBudgets(nil)
		_, c := h.replica("c", t0)
		h.replicaStep(c.ID, rentedPlacement(), t0)
	})
}

// A project that is deleted and made again has spent what it had spent, and its machines are given back.
func TestRentals_ABudgetOutlivesItsProject(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.s.SetBudgets(map[string]float64{"main": 100})
		idle := h.rentIdle("a")
		h.machineStep(idle.ID, dstack.InstanceUp, true, t0)
		facts, err := h.s.InstanceFacts(h.ctx(), idle.ID)
		h.noError(err)
		before, _, err := h.s.Budget(h.ctx(), h.project.ID, t0.Add(time.Hour))
		if err != nil || before.Spent == 0 || facts.Instance.IdleTime == 0 {
			t.Fatalf("%+v, %v; idle for %v", before, err, facts.Instance.IdleTime)
		}
		run, err := h.s.Run(h.ctx(), h.project.ID, "a")
		h.noError(err)
		h.finish(run.ID, t0)
		h.noError(h.s.DeleteProjects(h.ctx(), []string{"main"}))
		facts, err = h.s.InstanceFacts(h.ctx(), idle.ID)
		if err != nil || facts.Instance.IdleTime != 0 || !h.isDue("instances", string(idle.ID), time.Now()) {
			t.Errorf("the idle machine stays: %+v, %v", facts.Instance, err)
		}
		again := dstack.Project{ID: "again", Name: "MAIN", Owner: h.user.ID, CreatedAt: t0}
		h.noError(h.s.CreateProject(h.ctx(), again))
		after, has, err := h.s.Budget(h.ctx(), again.ID, t0.Add(time.Hour))
		if err != nil || !has || after.Spent != before.Spent || after.Committed != before.Committed {
			t.Errorf("%+v, %v, %v; before %+v", after, has, err, before)
		}
		run = dstack.Run{ID: "run", ProjectID: again.ID, User: h.user.Name, Name: "b", Spec: runSpec("b"), Revision: 1, SubmittedAt: t0}
		h.s.SetBudgets(map[string]float64{"main": before.Spent + before.Committed})
		h.noError(h.s.SubmitRun(h.ctx(), run))
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0), Due: t0}, t0)
		_, r := h.reread(run.ID)
		h.wantKind(dstack.Conflict, h.tryReplicaStep(r.ID, rentedPlacement(), t0))
	})
}
