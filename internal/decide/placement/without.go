package placement

import (
	"maps"

	"dstack/internal/dstack"
)

// ReleaseAllocations is what is held of the machines once these replicas have left.
func ReleaseAllocations(used map[dstack.InstanceID]dstack.Allocation, leaving []dstack.Replica) map[dstack.InstanceID]dstack.Allocation {
	after := make(map[dstack.InstanceID]dstack.Allocation, len(used))
	for id, u := range used {
		after[id] = dstack.Allocation{CPUs: u.CPUs, MemoryMiB: u.MemoryMiB, DiskMiB: u.DiskMiB, GPUs: maps.Clone(u.GPUs), Ports: maps.Clone(u.Ports)}
	}
	for _, r := range leaving {
		u, held := after[r.Instance]
		if !held || r.Status.IsFinished() {
			continue
		}
		u.CPUs -= r.Claim.CPUs
		u.MemoryMiB -= r.Claim.MemoryMiB
		u.DiskMiB -= r.Claim.DiskMiB
		for _, g := range r.Claim.GPUs {
			delete(u.GPUs, g.ID)
		}
		for _, port := range r.Claim.Ports {
			delete(u.Ports, port)
		}
		after[r.Instance] = u
	}
	return after
}
