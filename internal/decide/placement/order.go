package placement

import (
	"cmp"

	"dstack/internal/dstack"
)

// ownedKey is what decides the order of an owned machine.
type ownedKey struct {
	offer   int32 // index in the offers
	anyNode int   // 1: the cluster chooses the node
	price   float64

	sameTemplate, sameRun int // replicas of the run that the machine has

	// What is left of the machine once it has the replica, of what the replica claims.
	gpuMemoryMiB, memoryMiB, diskMiB int64
	cpus                             int

	replicas int // of all runs
}

// newOwnedKey returns the key of an owned machine that suits.
func (m *matcher) newOwnedKey(index int32, o *dstack.Offer, held *dstack.Allocation) ownedKey {
	key := ownedKey{offer: index, price: o.Price}
	if o.AnyNode {
		key.anyNode = 1
		return key
	}
	for _, share := range held.Runs {
		key.replicas += share.Replicas
		if m.need.Run == "" || share.Run != m.need.Run {
			continue
		}
		key.sameRun += share.Replicas
		if share.Template == m.need.Template {
			key.sameTemplate += share.Replicas
		}
	}
	for i := range o.Hardware.GPUs {
		if !isHeld(held, o.Hardware.GPUs[i].ID) {
			key.gpuMemoryMiB += o.Hardware.GPUs[i].MemoryMiB
		}
	}
	claim := m.buildClaim(o, held)
	for i := range claim.GPUs {
		key.gpuMemoryMiB -= claim.GPUs[i].MemoryMiB
	}
	if claim.MemoryMiB > 0 {
		key.memoryMiB = o.Hardware.MemoryMiB - held.MemoryMiB - claim.MemoryMiB
	}
	if claim.CPUs > 0 {
		key.cpus = o.Hardware.CPUs - held.CPUs - claim.CPUs
	}
	if claim.DiskMiB > 0 {
		key.diskMiB = o.Hardware.DiskMiB - held.DiskMiB - claim.DiskMiB
	}
	return key
}

// compareOwned orders owned machines. Replicas of one run are spread over machines, those
// of one template first, so that a lost machine takes as few as possible with it. Among
// machines with equally many, the replica gets the fullest that has enough of what it
// claims, so that larger replicas find space on the others; a machine without free GPUs
// is the fullest in that respect. What a replica does not claim is shared: then the
// machine with the fewest replicas comes first. Any node of a cluster comes last: a replica
// may have to wait for it.
func compareOwned(a, b ownedKey) int {
	return cmp.Or(
		cmp.Compare(a.anyNode, b.anyNode),
		cmp.Compare(a.sameTemplate, b.sameTemplate),
		cmp.Compare(a.sameRun, b.sameRun),
		cmp.Compare(a.price, b.price),
		cmp.Compare(a.gpuMemoryMiB, b.gpuMemoryMiB),
		cmp.Compare(a.memoryMiB, b.memoryMiB),
		cmp.Compare(a.cpus, b.cpus),
		cmp.Compare(a.diskMiB, b.diskMiB),
		cmp.Compare(a.replicas, b.replicas),
		cmp.Compare(a.offer, b.offer),
	)
}

// rentedKey is what decides the order of a machine to rent.
type rentedKey struct {
	price float64
	offer int32
}

func compareRented(a, b rentedKey) int {
	switch {
	case a.price < b.price:
		return -1
	case a.price > b.price:
		return 1
	}
	return int(a.offer) - int(b.offer)
}
