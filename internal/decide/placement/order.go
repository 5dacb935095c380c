package placement

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
)

// ownedKey is what decides the order of an owned machine.
type ownedKey struct {
	offer int32 // index in the offers
	class int   // see the constants
	price float64

	sameTemplate, sameRun int // replicas of the run that the machine has

	// What is left of the machine once it has the replica, of what the replica claims.
	gpuMemoryMiB, memoryMiB, diskMiB int64
	cpus                             int

	replicas int // of all runs
}

// The classes of machines that exist, in the order in which they are tried.
const (
	ownedMachine = iota
	idleMachine  // a rented one that runs nothing: it is paid anyway
	anyNode      // the cluster chooses the node
)

// newOwnedKey returns the key of a machine that suits and exists.
func (m *matcher) newOwnedKey(index int32, o *dstack.Offer, held *dstack.Allocation) ownedKey {
	key := ownedKey{offer: index, price: o.Price}
	if o.AnyNode {
		key.class = anyNode
		return key
	}
	if o.IsIdle {
		key.class = idleMachine
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

// compareOwned orders machines that exist: owned ones before rented ones that are idle. Replicas of one run are spread over machines, those
// of one template first, so that a lost machine takes as few as possible with it. Among
// machines with equally many, the replica gets the fullest that has enough of what it
// claims, so that larger replicas find space on the others; a machine without free GPUs
// is the fullest in that respect. What a replica does not claim is shared: then the
// machine with the fewest replicas comes first. Any node of a cluster comes last: a replica
// may have to wait for it.
func compareOwned(a, b ownedKey) int {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
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
	price    float64
	offer    int32
	onDemand bool
}

// compareRented orders machines to rent: the cheapest first, over all backends and regions. Of equally cheap ones,
// spot machines come first, then the order of the offers decides.
func compareRented(a, b rentedKey) int {
	switch {
	case a.price < b.price:
		return -1
	case a.price > b.price:
		return 1
	case a.onDemand != b.onDemand:
		if b.onDemand {
			return -1
		}
		return 1
	}
	return int(a.offer) - int(b.offer)
}

// sortFirst puts the first n keys in order, before all others: of a hundred thousand machines to rent, few are looked at.
func sortFirst(keys []rentedKey, n int) {
	if n > len(keys)/8 {
		slices.SortFunc(keys, compareRented)
		return
	}
	first := keys[:n]
	slices.SortFunc(first, compareRented)
	for i := n; i < len(keys) && n > 0; i++ {
		if compareRented(keys[i], first[n-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(first, keys[i], compareRented)
		last := first[n-1]
		copy(first[at+1:], first[at:])
		first[at], keys[i] = keys[i], last
	}
}
