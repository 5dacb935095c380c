package store_test

import (
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// rentedPlacement places a replica on a new machine of a cloud.
func rentedPlacement() lifecycle.ReplicaStep {
	step := placed(dstack.Claim{Whole: true})
	step.Placement.Offer = dstack.Offer{Backend: "aws", Key: "aws", Region: "us-east-1", Zone: "us-east-1a", Type: "g6.xlarge", Price: 0.8, IsRemote: true}
	return step
}

// onIdle places a replica on an idle machine.
func onIdle(i dstack.Instance) lifecycle.ReplicaStep {
	step := placed(dstack.Claim{Whole: true})
	step.Placement.Offer = i.Offer
	step.Placement.Offer.OwnedInstance, step.Placement.Offer.IsIdle = i.ID, true
	return step
}

// rentIdle rents a machine for a replica, which then ends.
func (h *fixture) rentIdle(name string) dstack.Instance {
	h.t.Helper()
	run, r := h.replica(name, t0)
	h.replicaStep(r.ID, rentedPlacement(), t0)
	_, r = h.reread(run.ID)
	h.instanceStep(r.Instance, lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0}, nil, nil, t0)
	h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
	idle, err := h.s.IdleInstances(h.ctx(), h.project.ID)
	h.noError(err)
	if len(idle) != 1 || idle[0].ID != r.Instance || idle[0].Project != h.project.ID || idle[0].Offer.Price != 0.8 {
		h.t.Fatalf("idle machines: %+v", idle)
	}
	return idle[0]
}

// An idle machine is given to one replica, and keeps its offer. Nobody else sees it.
func TestIdleInstances_AreTakenByOneReplica(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		idle := h.rentIdle("first")
		if others, err := h.s.IdleInstances(h.ctx(), "another project"); err != nil || len(others) > 0 {
			t.Errorf("idle for another project: %+v, %v", others, err)
		}
		_, a := h.replica("a", t0)
		_, b := h.replica("b", t0)
		h.replicaStep(a.ID, onIdle(idle), t0)
		h.wantKind(dstack.Conflict, h.tryReplicaStep(b.ID, onIdle(idle), t0))
		if left, err := h.s.IdleInstances(h.ctx(), h.project.ID); err != nil || len(left) > 0 {
			t.Errorf("still idle: %+v, %v", left, err)
		}
		seen, err := h.s.InstanceFacts(h.ctx(), idle.ID)
		h.noError(err)
		if len(seen.Replicas) != 1 || seen.Instance.Offer.OwnedInstance != "" || seen.Instance.Offer.IsIdle || !h.isDue("instances", string(idle.ID), t0) {
			t.Errorf("got %+v", seen)
		}
	})
}

// A deletion that was decided while a machine was idle is not saved once a replica has it, and a replica does not get a
// machine that is being deleted.
func TestIdleInstances_AreNotDeletedUnderAReplica(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		idle := h.rentIdle("first")
		_, a := h.replica("a", t0)
		l := h.claim("instances", string(idle.ID), t0)
		seen, err := h.s.InstanceFacts(h.ctx(), idle.ID)
		h.noError(err)
		h.replicaStep(a.ID, onIdle(idle), t0)
		_, err = h.s.SaveInstanceStep(h.ctx(), l, seen, lifecycle.InstanceStep{To: dstack.InstanceDeleting, Due: t0}, nil, nil, t0)
		h.wantKind(dstack.Conflict, err)
		h.noError(h.s.Release(h.ctx(), l, t0))

		h.replicaStep(a.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
		h.instanceStep(idle.ID, lifecycle.InstanceStep{To: dstack.InstanceDeleting, Due: t0}, nil, nil, t0)
		_, b := h.replica("b", t0)
		h.wantKind(dstack.Conflict, h.tryReplicaStep(b.ID, onIdle(idle), t0))
	})
}

// When a machine is taken back is kept, and its run is due at once.
func TestInstanceStep_KeepsWhenAMachineIsTakenBack(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("a", t0)
		h.replicaStep(r.ID, rentedPlacement(), t0)
		_, r = h.reread(run.ID)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1}, t0)
		l := h.claim("instances", string(r.Instance), t0)
		seen, err := h.s.InstanceFacts(h.ctx(), r.Instance)
		h.noError(err)
		seen.Listed, seen.Machine = true, &dstack.Machine{State: dstack.MachineRunning, TakenBackAt: t0.Add(2*time.Minute + 7)}
		_, err = h.s.SaveInstanceStep(h.ctx(), l, seen, lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0}, nil, nil, t0)
		h.noError(err)
		facts, err := h.s.RunFacts(h.ctx(), run.ID)
		h.noError(err)
		if i := facts.Instances[r.Instance]; !i.TakenBackAt.Equal(t0.Add(2*time.Minute)) || !i.IsDraining || !h.isDue("runs", string(run.ID), t0) {
			t.Errorf("got %+v", facts.Instances)
		}
	})
}

// The idle machines of a project that is deleted are given back at once, also those that were to be kept: nobody can use
// them any more, or sees what they cost.
func TestDeleteProjects_GivesIdleMachinesBack(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("first", t0)
		h.replicaStep(r.ID, rentedPlacement(), t0)
		_, r = h.reread(run.ID)
		later := t0.Add(time.Hour)
		h.instanceStep(r.Instance, lifecycle.InstanceStep{To: dstack.InstanceUp, Due: later}, nil, nil, t0)
		h.wantKind(dstack.Conflict, h.s.DeleteProjects(h.ctx(), []string{"main"}))
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
		h.finish(run.ID, t0)
		seen, err := h.s.InstanceFacts(h.ctx(), r.Instance)
		h.noError(err)
		if seen.Instance.IdleTime == 0 {
			t.Fatalf("got %+v", seen.Instance)
		}
		h.noError(h.s.DeleteProjects(h.ctx(), []string{"main"}))
		seen, err = h.s.InstanceFacts(h.ctx(), r.Instance)
		h.noError(err)
		if seen.Instance.IdleTime != 0 || seen.Instance.Status != dstack.InstanceUp || !h.isDue("instances", string(r.Instance), time.Now()) {
			t.Errorf("after the deletion: %+v", seen.Instance)
		}
	})
}
