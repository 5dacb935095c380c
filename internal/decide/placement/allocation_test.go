package placement_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func claimOf(cpus int, gpu string, port int) dstack.Claim {
	c := dstack.Claim{CPUs: cpus, MemoryMiB: int64(cpus) << 10, DiskMiB: int64(cpus) << 12}
	if gpu != "" {
		c.GPUs = []dstack.GPU{{ID: gpu}}
	}
	if port > 0 {
		c.Ports = []int{port}
	}
	return c
}

// Two grants on one instance add up; a run of another project is not named.
func TestAddGrant(t *testing.T) {
	used := map[dstack.InstanceID]dstack.Allocation{}
	placement.AddGrant(used, "mine", placement.Grant{Project: "mine", Run: "r1", RunName: "llama", Template: 2, Num: 3, Instance: "this", Claim: claimOf(2, "a", 8000)})
	placement.AddGrant(used, "mine", placement.Grant{Project: "other", Run: "r2", RunName: "secret", Num: 0, Instance: "this", Claim: claimOf(1, "b", 8001)})
	placement.AddGrant(used, "mine", placement.Grant{Project: "mine", Run: "r1", RunName: "llama", Template: 2, Num: 4, Instance: "this"})
	want := map[dstack.InstanceID]dstack.Allocation{"this": {
		CPUs: 3, MemoryMiB: 3 << 10, DiskMiB: 3 << 12,
		GPUs:  map[string]string{"a": "llama replica 3", "b": "a run of another project"},
		Ports: map[int]string{8000: "llama replica 3", 8001: "a run of another project"},
		Runs: []dstack.RunShare{
			{Run: "r1", Template: 2, Replicas: 2, Holder: "llama", HasSizes: true},
			{Run: "r2", Replicas: 1, Holder: "a run of another project", HasSizes: true},
		},
	}}
	if diff := cmp.Diff(want, used); diff != "" {
		t.Error(diff)
	}
}

// What is released is what was allocated; finished replicas release nothing,
// and the allocations given in stay as they are.
func TestReleaseAllocations(t *testing.T) {
	held := dstack.Allocation{}
	placement.Allocate(&held, claimOf(2, "a", 8000), "llama replica 0")
	held.Runs = []dstack.RunShare{{Run: "r0", Replicas: 2}, {Run: "r1", Template: 3, Replicas: 1}}
	used := map[dstack.InstanceID]dstack.Allocation{"this": held}
	leaves := dstack.Replica{Run: "r1", TemplateRevision: 3, Instance: "this", Claim: claimOf(2, "a", 8000), Status: dstack.ReplicaReady}
	finished := leaves
	finished.Status = dstack.ReplicaTerminated
	elsewhere := leaves
	elsewhere.Instance = "other"

	after := placement.ReleaseAllocations(used, []dstack.Replica{leaves, finished, elsewhere})
	want := map[dstack.InstanceID]dstack.Allocation{"this": {GPUs: map[string]string{}, Ports: map[int]string{},
		Runs: []dstack.RunShare{{Run: "r0", Replicas: 2}}}}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Error(diff)
	}
	if used["this"].CPUs != 2 || len(used["this"].GPUs) != 1 || len(used["this"].Ports) != 1 || len(used["this"].Runs) != 2 {
		t.Errorf("the given allocations changed: %+v", used)
	}
}

func TestFindPlacements_Blocked(t *testing.T) {
	need := dstack.Requirements{}
	need.Resources.CPU, need.Resources.Explicit.CPU = spec.Range[int]{Min: new(4)}, true
	used := func(cpus int) map[dstack.InstanceID]dstack.Allocation {
		return map[dstack.InstanceID]dstack.Allocation{"this": {CPUs: cpus}}
	}
	outdated := func(cpus int) []dstack.Replica {
		return []dstack.Replica{{Status: dstack.ReplicaReady, Instance: "this", Claim: dstack.Claim{CPUs: cpus}}}
	}
	for _, c := range []struct {
		name            string
		used            int // of 8 CPUs
		outdated        []dstack.Replica
		placed, blocked bool
	}{
		{"there is a place", 4, outdated(4), true, false},
		{"an outdated replica holds the place", 5, outdated(1), false, true},
		{"an outdated replica holds too little", 6, outdated(1), false, false},
		{"others hold the place", 8, nil, false, false},
	} {
		found := placement.FindPlacements(need, []dstack.Offer{box(nil)}, used(c.used), c.outdated)
		if (len(found.Placements) == 1) != c.placed || (len(found.Rejections) == 0) != c.placed || found.IsBlocked != c.blocked {
			t.Errorf("%s: %+v", c.name, found)
		}
	}
}

func TestExceededAndKeys(t *testing.T) {
	total := placement.Sum(placement.Sum(dstack.Claim{}, claimOf(2, "a", 1), 3), claimOf(4, "b", 2), 1)
	if total.CPUs != 10 || total.MemoryMiB != 10<<10 || total.DiskMiB != 10<<12 {
		t.Errorf("three of 2 and one of 4 are %+v", total)
	}
	if got := placement.Exceeded(box(nil), total, claimOf(4, "", 0)); !slices.Equal(got, []string{"CPUs"}) {
		t.Errorf("exceeded: %v", got)
	}
	total.MemoryMiB, total.DiskMiB = 33<<10, 51<<10
	if got := placement.Exceeded(box(nil), total, claimOf(4, "", 0)); !slices.Equal(got, []string{"CPUs", "memory", "disk"}) {
		t.Errorf("exceeded: %v", got)
	}
	if got := placement.Exceeded(box(nil), total, dstack.Claim{CPUs: 1}); !slices.Equal(got, []string{"CPUs"}) {
		t.Errorf("a size that is not claimed counts: %v", got)
	}
	rented := box(func(o *dstack.Offer) { o.OwnedInstance = "" })
	if got := placement.Exceeded(rented, total, claimOf(4, "", 0)); len(got) > 0 {
		t.Errorf("a rented machine is not shared: %v", got)
	}
	total = placement.Sum(dstack.Claim{}, dstack.Claim{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 50 << 10}, 1)
	if got := placement.Exceeded(box(nil), total, total); len(got) > 0 {
		t.Errorf("all that there is may be claimed: %v", got)
	}
	if got := placement.ExclusiveKeys(claimOf(1, "a", 80)); !slices.Equal(got, []string{"gpu:a", "port:80"}) {
		t.Errorf("keys: %v", got)
	}
}
