package placement

import (
	"fmt"
	"maps"
	"slices"

	"dstack/internal/dstack"
)

// Grant is a replica's claim on an instance.
type Grant struct {
	Project  dstack.ProjectID
	Run      dstack.RunID
	RunName  string
	Template int // the replica's template revision
	Num      int // the replica's number
	Instance dstack.InstanceID
	Claim    dstack.Claim
}

// AddGrant adds a grant to the allocation of its instance. It does not name
// runs of other projects than the viewer's.
func AddGrant(used map[dstack.InstanceID]dstack.Allocation, viewer dstack.ProjectID, g Grant) {
	run := "a run of another project"
	holder := run
	if g.Project == viewer {
		run, holder = g.RunName, fmt.Sprintf("%s replica %d", g.RunName, g.Num)
	}
	held := used[g.Instance]
	Allocate(&held, g.Claim, holder)
	addToRun(&held, g, run)
	used[g.Instance] = held
}

// addToRun counts a replica among those that its run has on an instance.
func addToRun(held *dstack.Allocation, g Grant, run string) {
	hasSizes := g.Claim.CPUs > 0 || g.Claim.MemoryMiB > 0 || g.Claim.DiskMiB > 0
	for i := range held.Runs {
		if share := &held.Runs[i]; share.Run == g.Run && share.Template == g.Template {
			share.Replicas++
			share.HasSizes = share.HasSizes || hasSizes
			return
		}
	}
	held.Runs = append(held.Runs, dstack.RunShare{Run: g.Run, Template: g.Template, Replicas: 1, Holder: run, HasSizes: hasSizes})
}

// removeFromRun is the opposite of addToRun.
func removeFromRun(held *dstack.Allocation, r dstack.Replica) {
	for i := range held.Runs {
		if share := &held.Runs[i]; share.Run == r.Run && share.Template == r.TemplateRevision {
			if share.Replicas--; share.Replicas <= 0 {
				held.Runs = slices.Delete(held.Runs, i, i+1)
			}
			return
		}
	}
}

// Allocate adds a claim to an instance's allocation. holder names the replica in
// messages to users.
func Allocate(held *dstack.Allocation, claim dstack.Claim, holder string) {
	held.CPUs += claim.CPUs
	held.MemoryMiB += claim.MemoryMiB
	held.DiskMiB += claim.DiskMiB
	if held.GPUs == nil {
		held.GPUs = map[string]string{}
	}
	if held.Ports == nil {
		held.Ports = map[int]string{}
	}
	for _, g := range claim.GPUs {
		if g.ID != "" { // the cluster assigns the device itself
			held.GPUs[g.ID] = holder
		}
	}
	for _, port := range claim.Ports {
		held.Ports[port] = holder
	}
}

// Release subtracts a claim from an instance's allocation.
func Release(held *dstack.Allocation, claim dstack.Claim) {
	held.CPUs -= claim.CPUs
	held.MemoryMiB -= claim.MemoryMiB
	held.DiskMiB -= claim.DiskMiB
	for _, g := range claim.GPUs {
		delete(held.GPUs, g.ID)
	}
	for _, port := range claim.Ports {
		delete(held.Ports, port)
	}
}

// ReleaseAllocations returns the allocations of the instances without the claims
// of the leaving replicas. It does not change used.
func ReleaseAllocations(
	used map[dstack.InstanceID]dstack.Allocation, leaving []dstack.Replica,
) map[dstack.InstanceID]dstack.Allocation {
	after := make(map[dstack.InstanceID]dstack.Allocation, len(used))
	for id, u := range used {
		u.GPUs, u.Ports, u.Runs = maps.Clone(u.GPUs), maps.Clone(u.Ports), slices.Clone(u.Runs)
		after[id] = u
	}
	for _, r := range leaving {
		if held, ok := after[r.Instance]; ok && !r.Status.IsFinished() {
			Release(&held, r.Claim)
			removeFromRun(&held, r)
			after[r.Instance] = held
		}
	}
	return after
}

// Sum adds the CPUs, memory and disk of as many claims like c to sum. GPUs and
// ports are not added: see ExclusiveKeys.
func Sum(sum, c dstack.Claim, times int) dstack.Claim {
	sum.CPUs += times * c.CPUs
	sum.MemoryMiB += int64(times) * c.MemoryMiB
	sum.DiskMiB += int64(times) * c.DiskMiB
	return sum
}

// Exceeded names the sizes that claim asks for and that all claims on the
// instance together exceed. total includes claim. Only owned instances are
// shared; a rented instance is never exceeded, and any node of a cluster is checked by the
// cluster.
func Exceeded(o dstack.Offer, total, claim dstack.Claim) (short []string) {
	if !o.IsShared() || o.AnyNode {
		return nil
	}
	if claim.CPUs > 0 && total.CPUs > o.Hardware.CPUs-o.Taken.CPUs {
		short = append(short, "CPUs")
	}
	if claim.MemoryMiB > 0 && total.MemoryMiB > o.Hardware.MemoryMiB-o.Taken.MemoryMiB {
		short = append(short, "memory")
	}
	if claim.DiskMiB > 0 && total.DiskMiB > o.Hardware.DiskMiB-o.Taken.DiskMiB {
		short = append(short, "disk")
	}
	return short
}

// ExclusiveKeys names everything in a claim that only one replica of an
// instance can hold: "gpu:<id>", "port:<number>", "machine".
func ExclusiveKeys(c dstack.Claim) (keys []string) {
	if c.Whole {
		keys = append(keys, "machine")
	}
	for _, g := range c.GPUs {
		if g.ID != "" {
			keys = append(keys, "gpu:"+g.ID)
		}
	}
	for _, p := range c.Ports {
		keys = append(keys, fmt.Sprintf("port:%d", p))
	}
	return keys
}
