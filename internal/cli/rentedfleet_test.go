package cli

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

const rentedFile = "type: fleet\nname: pool\nnodes: 1..4\nplacement: cluster\nresources: {gpu: L4}\n"

func machineView(num int, status api.MachineStatus) api.MachineView {
	return api.MachineView{ID: string(rune('a' + num)), Num: num, Name: "pool-" + string(rune('0'+num)), Backend: "aws", Region: "us-east-1", Zone: "us-east-1a", Type: "g6.xlarge",
		Spot: true, Price: 0.4, CPUs: 4, MemoryMiB: 16 << 10, DiskMiB: 100 << 10, GPUs: []api.HostGPU{{Name: "L4", MemoryMiB: 24 << 10}}, Status: status, Since: time.Now()}
}

// newRentedServer returns a server with a fleet whose machine comes up, or not.
func newRentedServer(t *testing.T, last api.FleetView) *fakeServer {
	f := newFakeServer(t)
	f.fleets.preview = api.FleetPreview{Project: "main", User: "admin", Name: "pool", IsChanged: true, Hosts: []api.HostChange{},
		Rented: &api.RentedPlan{Add: 2, Total: 7, Placements: []api.Placement{{Offer: api.Offer{Backend: "aws", Region: "us-east-1", Price: 0.4,
			Instance: api.InstanceType{Name: "g6.xlarge", Resources: api.Resources{CPUs: 4, MemoryMiB: 16 << 10, Spot: true}}}}}}}
	first := api.FleetView{Name: "pool", IsRented: true, Machines: []api.MachineView{machineView(0, api.MachineStatusProvisioning)}}
	last.Name, last.IsRented = "pool", true
	f.fleets.views = []api.FleetView{first, last}
	return f
}

func TestApplyFleet_Rented(t *testing.T) {
	f := newRentedServer(t, api.FleetView{Machines: []api.MachineView{machineView(0, api.MachineStatusIdle)}})
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", rentedFile)
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitDone, nil, []string{
		" fleet pool · project main · as admin",
		" 1 machine kept ready, up to 4 when runs need them, all in one zone with a fast network between them",
		" rents 2 machines, from $0.80 an hour in all", "g6.xlarge", " and 6 other offers",
		"   pool-0  ready   g6.xlarge in aws us-east-1a, spot, $0.40 an hour", " pool is ready with 1 machine",
	})
	u.run("fleet", "list").check(t, ExitDone, []string{"FLEET  MACHINE  STATUS  WHERE", "pool-0", "idle", "aws us-east-1a", "1×L4 24GB", "$0.40 spot"}, nil)
	u.run("fleet", "drain", "pool-0").check(t, ExitDone, nil, []string{" pool-0 is drained"})
	if d := f.fleets.drained; len(d) != 1 || d[0].Name != "pool" || len(d[0].InstanceNums) != 1 || d[0].InstanceNums[0] != 0 {
		t.Errorf("%+v", d)
	}
}

// A fleet that cannot have its machines says why, and ends with the exit code of missing capacity.
func TestApplyFleet_RentedWithoutCapacity(t *testing.T) {
	f := newRentedServer(t, api.FleetView{Shortage: &api.Shortage{Missing: 2, Reason: "none is left in us-east-1a", IsFinal: true}})
	f.fleets.preview.Rented = &api.RentedPlan{Add: 2, Rejections: []api.Rejection{{Offer: api.Offer{Backend: "aws", Instance: api.InstanceType{Name: "g6.xlarge"}},
		Reason: "costs $0.71 an hour", Help: "write max_price: 0.71"}}}
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", rentedFile)
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitNoCapacity, nil, []string{
		"no machine to rent suits", "aws g6.xlarge: costs $0.71 an hour; write max_price: 0.71", "error: 2 machines cannot be rented: none is left in us-east-1a",
	})
	u.run("fleet", "get", "pool").check(t, ExitDone, []string{"2 machines are missing: none is left in us-east-1a"}, nil)
}

// The profile of the folder applies to fleets of rented machines.
func TestApplyFleet_RentedWithAProfile(t *testing.T) {
	f := newRentedServer(t, api.FleetView{Machines: []api.MachineView{machineView(0, api.MachineStatusIdle)}})
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", rentedFile)
	u.writeFile(".dstack/profiles.yml", "profiles:\n- name: cheap\n  max_price: 0.5\n  default: true\n- name: spot\n  spot_policy: spot\n")
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitDone, nil, nil)
	u.run("apply", "-f", "fleet.dstack.yml", "-y", "--profile", "spot").check(t, ExitDone, nil, nil)
	u.run("apply", "-f", "fleet.dstack.yml", "-y", "--profile", "none").check(t, ExitInvalid, nil, []string{"no such profile: none"})
	if a := f.fleets.applied; len(a) != 2 || !strings.Contains(a[0], `"max_price":0.5`) || !strings.Contains(a[1], `"spot_policy":"spot"`) {
		t.Errorf("%q", a)
	}
}
