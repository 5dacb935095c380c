package placement

import (
	"maps"

	"dstack/internal/dstack"
)

// Without is what is held of the machines once these replicas have left.
func Without(used map[dstack.InstanceID]dstack.Used, leaving []dstack.Replica) map[dstack.InstanceID]dstack.Used {
	after := make(map[dstack.InstanceID]dstack.Used, len(used))
	for id, u := range used {
		after[id] = dstack.Used{CPUs: u.CPUs, MemoryMiB: u.MemoryMiB, DiskMiB: u.DiskMiB, GPUs: maps.Clone(u.GPUs), Ports: maps.Clone(u.Ports)}
	}
	for _, r := range leaving {
		u, held := after[r.Instance]
		if !held || r.Status.Finished() {
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
