package server

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/fleet"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// rentedText is the configuration of a fleet as published clients send it.
func rentedText(nodes string) string {
	return `{"type": "fleet", "name": "pool", "env": {}, "ssh_config": null, "nodes": ` + nodes + `, "placement": null, "resources": {"cpu": {"min": 4, "max": null},
		"memory": {"min": 8, "max": null}, "shm_size": null, "gpu": null, "disk": {"size": {"min": 100, "max": null}}}, "backends": null, "regions": ["north"],
		"instance_types": null, "spot_policy": null, "retry": null, "max_price": 2.5, "termination_policy": null, "termination_idle_time": 3600}`
}

// rentable is a machine that can be rented.
func rentable(name string, price float64) dstack.Offer {
	return dstack.Offer{Backend: "aws", Region: "north", Zone: "north-a", Type: name, Price: price, IsRemote: true, Engine: dstack.EngineCapabilities{Name: "docker", Containers: true},
		Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 200 << 10}}
}

// stepFleet saves a step of the fleet called pool, as the fleet pass does.
func (h *testServer) stepFleet(change func(dstack.Fleet, *fleet.RentedStep)) {
	h.t.Helper()
	f, version, err := h.store.CloudFleet(h.t.Context(), h.findPool().ID)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.store.MarkDue(h.t.Context(), store.CloudFleets, string(f.ID), time.Now()); err != nil {
		h.t.Fatal(err)
	}
	leases, err := h.store.Claim(h.t.Context(), store.CloudFleets, "o", "h", time.Now(), time.Minute, 1)
	if err != nil || len(leases) != 1 {
		h.t.Fatal(leases, err)
	}
	step := fleet.RentedStep{Rounds: f.Rounds}
	change(f, &step)
	if err := h.store.SaveFleetStep(h.t.Context(), leases[0], f, version, step, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testServer) findPool() dstack.Fleet {
	h.t.Helper()
	projects, err := h.store.Projects(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	f, err := h.store.FindFleet(h.t.Context(), projects[0].ID, "pool")
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

func TestRentedFleets_As01810(t *testing.T) {
	h := newTestServer(t)
	in := `{"spec": {"configuration": ` + rentedText(`{"min": 2, "max": 3}`) + `, "profile": {"name": "default", "spot_policy": "spot"}, "autocreated": false}}`
	var created v018.Fleet
	h.mustCall(api.ProjectPrefix+"/fleets/create", in, &created)
	if created.Status != "active" || len(created.Instances) != 2 || created.Instances[0].Status != "pending" || created.Instances[1].Name != "pool-1" {
		t.Errorf("%+v", created)
	}
	a := h.callAs(h.admin, api.ProjectPrefix+"/fleets/get", `{"name": "pool"}`)
	for _, part := range []string{`"nodes":{"min":2,"max":3}`, `"regions":["north"]`, `"termination_idle_time":3600`, `"max_price":2.5`, `"backend":null`, `"instance_type":null`,
		`"ssh_config":null`, `"spot_policy":"spot"`} {
		if !strings.Contains(a.text, part) {
			t.Errorf("%s is missing in %s", part, a.text)
		}
	}
	h.stepFleet(func(_ dstack.Fleet, step *fleet.RentedStep) { step.Rent = []dstack.Offer{rentable("m6.large", 0.5)} })
	var pool []api.Instance
	h.mustCall("/api/pools/list_instances", `{"only_active": true, "limit": 1000}`, &pool)
	if len(pool) != 2 || pool[0].Status == pool[1].Status {
		t.Errorf("%+v", pool)
	}
	var list []v018.Fleet
	h.mustCall(api.ProjectPrefix+"/fleets/list", "", &list)
	if got := list[0].Instances; len(got) != 2 || got[0].Status != "provisioning" || got[0].Backend != "aws" || got[0].InstanceType.Name != "m6.large" || got[0].Price != 0.5 ||
		got[1].Status != "pending" {
		t.Errorf("%+v", got)
	}
	h.expectError(api.ProjectPrefix+"/fleets/create", in, 400, dstack.Conflict, "resource_exists")
	h.expectError(api.ProjectPrefix+"/fleets/delete_instances", `{"name": "pool", "instance_nums": [1]}`, 400, dstack.NotFound, "resource_not_exists")
	h.mustCall(api.ProjectPrefix+"/fleets/delete_instances", `{"name": "pool", "instance_nums": [0]}`, nil)
	h.mustCall(api.ProjectPrefix+"/fleets/delete", `{"names": ["pool"]}`, nil)
	h.mustCall(api.ProjectPrefix+"/fleets/get", `{"name": "pool"}`, &created)
	if created.Status != "terminating" || len(created.Instances) != 1 || created.Instances[0].Status != "terminating" {
		t.Errorf("%+v", created)
	}
	h.stepFleet(func(f dstack.Fleet, step *fleet.RentedStep) { step.IsGone = true })
	h.expectError(api.ProjectPrefix+"/fleets/get", `{"name": "pool"}`, 400, dstack.NotFound, "resource_not_exists")
}

func TestRentedFleets_AsNewest(t *testing.T) {
	h := newTestServer(t)
	h.backend.offers = append(h.backend.offers, rentable("m6.large", 0.5), rentable("m6.xlarge", 1))
	request := `{"configuration": {"type": "fleet", "name": "pool", "nodes": {"min": 1, "max": 4, "target": 2}, "placement": "cluster", "resources": {"cpu": {"min": 4}},
		"idle_duration": -1, "blocks": 1, "env": {}, "retry": null}, "configuration_path": "fleet.dstack.yml", "profile": {"name": "default", "max_price": 3}}`
	type fleetAnswer struct {
		ID        string          `json:"id"`
		Status    string          `json:"status"`
		Spec      json.RawMessage `json:"spec"`
		Instances []struct {
			Status            string           `json:"status"`
			Backend           *string          `json:"backend"`
			InstanceType      *json.RawMessage `json:"instance_type"`
			AvailabilityZone  *string          `json:"availability_zone"`
			TerminationReason *string          `json:"termination_reason"`
		} `json:"instances"`
	}
	var plan struct {
		Action          string            `json:"action"`
		EffectiveSpec   json.RawMessage   `json:"effective_spec"`
		CurrentResource *fleetAnswer      `json:"current_resource"`
		Offers          []json.RawMessage `json:"offers"`
		TotalOffers     int               `json:"total_offers"`
		MaxOfferPrice   float64           `json:"max_offer_price"`
	}
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/get_plan", `{"spec": `+request+`}`, &plan)
	if plan.Action != "create" || len(plan.Offers) != 2 || plan.TotalOffers != 2 || plan.MaxOfferPrice != 1 {
		t.Errorf("%+v", plan)
	}
	var applied fleetAnswer
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/apply", `{"plan": {"spec": `+request+`, "current_resource": null}, "force": false}`, &applied)
	if len(applied.Instances) != 2 || applied.Instances[0].Status != "pending" || applied.Instances[0].Backend != nil || applied.Instances[0].InstanceType != nil {
		t.Errorf("%+v", applied)
	}
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/get_plan", `{"spec": `+request+`}`, &plan)
	if string(plan.CurrentResource.Spec) != string(plan.EffectiveSpec) || plan.Action != "update" {
		t.Errorf("the same configuration differs from itself:\n%s\n%s", plan.CurrentResource.Spec, plan.EffectiveSpec)
	}
	for _, part := range []string{`"nodes":{"min":1,"target":2,"max":4}`, `"placement":"cluster"`, `"idle_duration":-1`, `"max_price":3`} {
		if !strings.Contains(string(plan.EffectiveSpec), part) {
			t.Errorf("%s is missing in %s", part, plan.EffectiveSpec)
		}
	}
	h.stepFleet(func(_ dstack.Fleet, step *fleet.RentedStep) {
		step.Rent = []dstack.Offer{rentable("m6.large", 0.5)}
		step.Rounds = dstack.FleetRounds{IsExhausted: true, MissingSince: time.Now(), Reason: "none is left", NextAt: time.Now().Add(time.Minute)}
	})
	var list []fleetAnswer
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/list", `{"include_imported": true}`, &list)
	got := list[len(list)-1].Instances
	if len(got) != 2 || got[0].Status != "provisioning" || *got[0].Backend != "aws" || *got[0].AvailabilityZone != "north-a" || got[1].Status != "terminated" ||
		*got[1].TerminationReason != "none is left" {
		t.Errorf("%+v", got)
	}
}

func TestRentedFleets_AsOurCommandLine(t *testing.T) {
	h := newTestServer(t)
	h.backend.offers = append(h.backend.offers, rentable("m6.large", 0.5), rentable("m6.xlarge", 3))
	request := func(nodes string) string { return `{"configuration": ` + rentedText(nodes) + `}` }
	var preview api.FleetPreview
	h.mustCall(api.PathFleetPreview, request(`{"min": 2, "max": 3}`), &preview)
	if p := preview.Rented; preview.Current != nil || p == nil || p.Add != 2 || p.Total != 1 || p.Placements[0].Offer.Instance.Name != "m6.large" ||
		len(p.Rejections) != 1 || p.Rejections[0].Constraint != "max_price" {
		t.Errorf("%+v", preview.Rented)
	}
	var view api.FleetView
	h.mustCall(api.PathFleetApply, request(`{"min": 2, "max": 3}`), &view)
	if !view.IsRented || len(view.Machines) != 0 || view.Shortage.Missing != 2 {
		t.Errorf("%+v", view)
	}
	h.stepFleet(func(_ dstack.Fleet, step *fleet.RentedStep) {
		step.Rent = []dstack.Offer{rentable("m6.large", 0.5), rentable("m6.large", 0.5)}
	})
	h.mustCall(api.PathFleetPreview, request(`{"min": 1, "max": 1}`), &preview)
	if p := preview.Rented; !preview.IsChanged || p.Add != 0 || p.Remove != 1 {
		t.Errorf("%+v", p)
	}
	h.mustCall(api.PathFleetDrain, `{"name": "pool", "instance_nums": [1], "drain": true}`, &view)
	if m := view.Machines; len(m) != 2 || m[0].Status != api.MachineStatusProvisioning || m[0].Name != "pool-0" || m[0].Type != "m6.large" || !m[1].IsDraining {
		t.Errorf("%+v", m)
	}
	a := h.callAs(h.admin, api.PathFleetApply, `{"configuration": `+strings.Replace(newFleetText(`["a"]`), "boxes", "pool", 1)+`}`)
	if a.status != 400 || !strings.Contains(a.text, "the fleet pool has rented machines") {
		t.Errorf("hosts for a fleet of rented machines: %s", a.text)
	}
}

// The machines that runs rented outside of fleets are fleets of their own for published clients, and for nobody else.
func TestRunFleets(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	h.stepRun(dstack.RunID(run.ID), lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0, Group: spec.DefaultGroup}}})
	replica := h.findReplica(dstack.RunID(run.ID))
	offer := rentable("m6.large", 0.5)
	offer.Key = "aws"
	h.stepReplica(replica.ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true, Placement: &dstack.Placement{Offer: offer}}
	})
	instance := h.findReplica(dstack.RunID(run.ID)).Instance
	var list []v018.Fleet
	h.mustCall(api.ProjectPrefix+"/fleets/list", "", &list)
	if len(list) != 1 || list[0].Name != "web" || !list[0].Spec.AutoCreated || len(list[0].Instances) != 1 || list[0].Instances[0].Status != "provisioning" ||
		list[0].Instances[0].ID != string(instance) || list[0].Instances[0].Backend != "aws" {
		t.Errorf("%+v", list)
	}
	var newest []struct {
		Name string
		Spec struct{ AutoCreated bool }
	}
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/list", `{"include_imported": true}`, &newest)
	if last := newest[len(newest)-1]; last.Name != "web" || !last.Spec.AutoCreated {
		t.Errorf("%+v", newest)
	}
	var views []api.FleetView
	h.mustCall(api.PathFleetViews, `{}`, &views)
	if len(views) != 0 {
		t.Errorf("%+v", views)
	}
	h.expectError(api.ProjectPrefix+"/fleets/delete", `{"names": ["web"]}`, 400, dstack.Conflict, "error")
	h.stepReplica(replica.ID, func(dstack.Replica) lifecycle.ReplicaStep { return lifecycle.ReplicaStep{To: dstack.ReplicaTerminated} })
	h.mustCall(api.ProjectPrefix+"/fleets/delete", `{"names": ["web"]}`, nil)
	seen, err := h.store.InstanceFacts(t.Context(), instance)
	if err != nil || seen.Instance.IdleTime != 0 {
		t.Errorf("its idle time is %s, %v", seen.Instance.IdleTime, err)
	}
}

// A service that names a fleet is planned on what the fleet may rent for it, and told when the fleet has all of its machines.
func TestRentedFleets_PlanOfServices(t *testing.T) {
	h := newTestServer(t)
	h.backend.offers = append(h.backend.offers, rentable("m6.large", 0.5), rentable("m6.xlarge", 1))
	h.mustCall(api.PathFleetApply, `{"configuration": `+strings.Replace(rentedText(`{"min": 0, "max": 1}`), `"instance_types": null`, `"instance_types": ["m6.xlarge"]`, 1)+`}`, nil)
	rs := h.newRunSpec("web", "type: service\nimage: i\nport: 8000\nfleets: [pool]\n")
	var preview api.Preview
	h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &preview)
	if p := preview.Placements; len(p) != 1 || p[0].Offer.Instance.Name != "m6.xlarge" || preview.Totals.Placements != 1 {
		t.Errorf("%+v, %+v", p, preview.Rejections)
	}
	h.stepFleet(func(_ dstack.Fleet, step *fleet.RentedStep) { step.Rent = []dstack.Offer{rentable("m6.xlarge", 1)} })
	h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &preview)
	found := false
	for _, r := range preview.Rejections {
		found = found || r.Reason == "has all of its 1 machine" && r.Help == "allow the fleet more: nodes: 0..2"
	}
	if len(preview.Placements) != 0 || !found {
		t.Errorf("%+v, %+v", preview.Placements, preview.Rejections)
	}
}

// GPUs of rented machines that run nothing are counted, too, and the profile of our command line is that of the fleet.
func TestRentedFleets_GPUsOfIdleMachines(t *testing.T) {
	h := newTestServer(t)
	machine := rentable("g6.xlarge", 0.8)
	machine.Hardware.GPUs = []dstack.GPU{{ID: "0", Maker: "nvidia", Name: "L4", MemoryMiB: 22888}}
	h.mustCall(api.PathFleetApply, `{"configuration": `+rentedText(`{"min": 1, "max": 1}`)+`, "profile": {"name": "p", "spot_policy": "on-demand"}}`, nil)
	h.stepFleet(func(f dstack.Fleet, step *fleet.RentedStep) {
		if f.Profile.Name != "p" || f.Profile.SpotPolicy == "" {
			t.Errorf("the profile is %+v", f.Profile)
		}
		step.Rent = []dstack.Offer{machine}
	})
	var views []api.FleetView
	h.mustCall(api.PathFleetViews, `{"names": ["pool"]}`, &views)
	h.saveReports(dstack.InstanceID(views[0].Machines[0].ID))
	var list api.OfferList
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "group_by": ["gpu", "backend"]}`, &list)
	found := false
	for _, g := range list.Groups[0].GPUs {
		found = found || g.Backend == "aws" && g.Name == "L4" && slices.Contains(g.Availability, "idle")
	}
	if !found {
		t.Errorf("%+v", list.Groups[0].GPUs)
	}
}
