package placement

import (
	"maps"

	"dstack/internal/dstack"
)

// otherPods holds what others than dstack's replicas hold of a node, for the user.
const otherPods = "other pods on the node"

// allocationOf returns what is allocated of an offer's machine: what replicas hold, and what others do.
func (r *Ranking) allocationOf(o *dstack.Offer) *dstack.Allocation {
	if o.OwnedInstance == "" {
		return &noAllocation
	}
	held := withTaken(r.used[o.OwnedInstance], o)
	return &held
}

// withTaken adds to an allocation what others hold of a machine. Any GPU that no replica holds
// stands for one that others hold, the last ones first, because a replica gets the first ones.
func withTaken(held dstack.Allocation, o *dstack.Offer) dstack.Allocation {
	held.CPUs += o.Taken.CPUs
	held.MemoryMiB += o.Taken.MemoryMiB
	held.DiskMiB += o.Taken.DiskMiB
	if o.Taken.GPUs == 0 {
		return held
	}
	gpus := maps.Clone(held.GPUs)
	if gpus == nil {
		gpus = map[string]string{}
	}
	left := o.Taken.GPUs
	for i := len(o.Hardware.GPUs) - 1; i >= 0 && left > 0; i-- {
		if id := o.Hardware.GPUs[i].ID; gpus[id] == "" {
			gpus[id] = otherPods
			left--
		}
	}
	held.GPUs = gpus
	return held
}

// describeOtherHolder names who holds sizes of a machine, where none of its replicas does.
func describeOtherHolder(o *dstack.Offer) string {
	if o.Taken != (dstack.Taken{}) {
		return otherPods
	}
	return "another run"
}
