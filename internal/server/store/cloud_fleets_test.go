package store_test

import (
	"encoding/json"
	"testing"
	"time"

	"dstack/internal/decide/fleet"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// cloudFleet returns a fleet of rented machines as an API call has it.
func (h *fixture) cloudFleet(nodes string) dstack.Fleet {
	f := dstack.Fleet{Project: h.project.ID, Name: "pool", Author: "admin"}
	h.noError(json.Unmarshal([]byte(`{"type": "fleet", "name": "pool", "nodes": "`+nodes+`"}`), &f.Configuration))
	return f
}

func (h *fixture) fleetStep(id dstack.FleetID, step fleet.RentedStep, now time.Time) {
	h.t.Helper()
	h.noError(h.s.MarkDue(h.ctx(), store.CloudFleets, string(id), now))
	l := h.claim(store.CloudFleets, string(id), now)
	f, version, err := h.s.CloudFleet(h.ctx(), id)
	h.noError(err)
	h.noError(h.s.SaveFleetStep(h.ctx(), l, f, version, step, now))
}

func TestCloudFleet_FromApplyToGone(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		price := 2.5
		wanted := h.cloudFleet("1..2")
		wanted.Profile.MaxPrice = &price
		f, err := h.s.ApplyCloudFleet(h.ctx(), wanted, t0)
		h.noError(err)
		if !f.IsRented() || len(f.Instances) != 0 || *f.Profile.MaxPrice != 2.5 {
			t.Fatalf("%+v", f)
		}
		hosts := h.fleet("a")
		hosts.Name = "pool"
		_, err = h.s.ApplyFleet(h.ctx(), hosts, t0)
		h.wantKind(dstack.Conflict, err)
		h.wantKind(dstack.Conflict, h.s.DeleteProjects(h.ctx(), []string{"Main"}))

		offer := dstack.Offer{Backend: "aws", Key: "aws", Region: "r", Type: "small", Price: 1, Fleet: "pool"}
		h.fleetStep(f.ID, fleet.RentedStep{Rent: []dstack.Offer{offer}, Rounds: dstack.FleetRounds{ReachedTarget: true}}, t0.Add(sec(1)))
		h.restart()
		f, err = h.s.FindFleet(h.ctx(), h.project.ID, "pool")
		h.noError(err)
		if len(f.Instances) != 1 || f.Instances[0].Num != 0 || f.Instances[0].Instance.Fleet != f.ID || f.Instances[0].Instance.Project != h.project.ID ||
			f.Instances[0].Instance.IdleTime >= 0 || !f.Rounds.ReachedTarget {
			t.Fatalf("%+v", f)
		}

		// A replica of a run that names the fleet adds a machine, and another one finds the fleet full.
		place := placed(dstack.Claim{})
		place.Placement.Offer = offer
		_, first := h.replica("web", t0)
		h.replicaStep(first.ID, place, t0.Add(sec(2)))
		_, second := h.replica("more", t0)
		h.wantKind(dstack.Conflict, h.tryReplicaStep(second.ID, place, t0.Add(sec(3))))
		f, err = h.s.FindFleet(h.ctx(), h.project.ID, "pool")
		h.noError(err)
		if len(f.Instances) != 2 || f.Instances[1].Num != 1 || f.Instances[1].Replicas != 1 || f.Instances[1].Instance.IdleTime >= 0 {
			t.Fatalf("%+v", f.Instances)
		}
		replicas, err := h.s.HostReplicas(h.ctx(), []dstack.ProjectID{h.project.ID})
		h.noError(err)
		if on := replicas[f.Instances[1].Instance.ID]; len(on) != 1 || on[0] != "web replica 0" {
			t.Errorf("%v", replicas)
		}
		if machines, err := h.s.RunMachines(h.ctx(), []dstack.ProjectID{h.project.ID}); err != nil || len(machines) != 0 {
			t.Errorf("a machine of a fleet is shown as that of a run: %+v, %v", machines, err)
		}
		h.wantKind(dstack.Conflict, h.s.DeleteHosts(h.ctx(), h.project.ID, "pool", []int{1}, t0))
		h.wantKind(dstack.Conflict, h.s.DeleteFleets(h.ctx(), h.project.ID, []string{"pool"}, t0))
		f, err = h.s.SetDraining(h.ctx(), h.project.ID, "pool", []int{1}, true, t0.Add(sec(4)))
		h.noError(err)
		if f.Instances[0].IsDraining || !f.Instances[1].IsDraining {
			t.Errorf("%+v", f.Instances)
		}
		h.noError(h.s.DeleteFleets(h.ctx(), h.project.ID, []string{"pool"}, t0.Add(sec(5))))
		if _, err := h.s.RemoveLeftHosts(h.ctx()); err != nil {
			t.Fatal(err)
		}
		step := fleet.DecideRented(fleet.RentedFacts{Fleet: h.pool()}, t0.Add(sec(5)))
		h.fleetStep(f.ID, step, t0.Add(sec(6)))
		if f = h.pool(); len(f.Instances) != 2 || !f.Instances[0].IsLeaving || !f.Instances[1].IsLeaving || f.Instances[0].Instance.IdleTime != 0 {
			t.Fatalf("%+v", f.Instances)
		}
		h.replicaStep(first.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(sec(7)))
		for _, m := range f.Instances {
			seen, err := h.s.InstanceFacts(h.ctx(), m.Instance.ID)
			h.noError(err)
			if seen.Member == nil || !seen.Member.IsLeaving || seen.Member.Reason != "its fleet was deleted" {
				t.Errorf("%+v", seen.Member)
			}
			h.instanceStep(m.Instance.ID, lifecycle.InstanceStep{To: dstack.InstanceDeleted}, nil, nil, t0.Add(sec(8)))
		}
		h.fleetStep(f.ID, fleet.DecideRented(fleet.RentedFacts{Fleet: h.pool()}, t0.Add(sec(9))), t0.Add(sec(9)))
		_, err = h.s.FindFleet(h.ctx(), h.project.ID, "pool")
		h.wantKind(dstack.NotFound, err)
	})
}

func (h *fixture) pool() dstack.Fleet {
	h.t.Helper()
	f, err := h.s.FindFleet(h.ctx(), h.project.ID, "pool")
	h.noError(err)
	return f
}

// A machine that a run rented outside of fleets is shown with its run, also when the run has ended.
func TestRunMachines(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		place := placed(dstack.Claim{})
		place.Placement.Offer = dstack.Offer{Backend: "aws", Key: "aws", Region: "r", Type: "small"}
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, place, t0.Add(sec(1)))
		for _, replicas := range []int{1, 0} {
			machines, err := h.s.RunMachines(h.ctx(), []dstack.ProjectID{h.project.ID})
			h.noError(err)
			if len(machines) != 1 || machines[0].Run != run.ID || machines[0].RunName != "web" || machines[0].Machine.Replicas != replicas || machines[0].ProjectName != "Main" {
				t.Errorf("%+v", machines)
			}
			if replicas == 1 {
				h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(sec(2)))
			}
		}
	})
}
