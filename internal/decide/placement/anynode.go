package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/spec"
)

// cardRequest is the GPUs that a replica asks a cluster for that chooses the node.
type cardRequest struct {
	cards []dstack.GPU // without IDs: the cluster assigns the devices
	why   string       // why a cluster cannot be asked for them, for the user; empty: it can
}

// clusterMakers are the makers of the GPUs that the nodes of a cluster count.
var clusterMakers = []string{gpu.Nvidia, gpu.AMD}

// request returns the GPUs to ask a cluster for: as few as suffice whichever of the acceptable
// models the node has.
func (m *gpuMatcher) request() cardRequest {
	if m == nil || m.refusesAny() {
		return cardRequest{}
	}
	card := dstack.GPU{Maker: m.requestedMaker()}
	if !slices.Contains(clusterMakers, card.Maker) {
		return cardRequest{why: fmt.Sprintf("a cluster can be asked for GPUs of nvidia and amd, not of %s", card.Maker)}
	}
	isUnknown := func(r gpu.Request) bool { return !r.Known }
	if m.isRestricted() && len(ListModels(m.want)) == 0 && !slices.ContainsFunc(m.requests, isUnknown) {
		return cardRequest{why: "no GPU that dstack knows is like that"}
	}
	if len(m.requests) == 1 {
		card.Name = m.requests[0].Names[0]
	}
	size := m.smallestSize()
	card.MemoryMiB = int64(size * 1024)
	count := m.least
	if total := m.want.TotalMemory; total != nil {
		if size == 0 {
			return cardRequest{why: "total_memory says nothing about one GPU: add `name` or `memory` to `gpu`"}
		}
		if total.Min != nil {
			count = max(count, int(math.Ceil(float64(*total.Min/size))))
		}
		isTooMuch := total.Max != nil && size*spec.GB(count) > *total.Max*upperTolerance
		if isTooMuch || m.most >= 0 && count > m.most {
			return cardRequest{why: fmt.Sprintf("no number of GPUs of %s gives the total_memory", formatGB(size))}
		}
	}
	return cardRequest{cards: slices.Repeat([]dstack.GPU{card}, count)}
}

// isRestricted reports whether not every GPU of the maker will do.
func (m *gpuMatcher) isRestricted() bool {
	return len(m.requests) > 0 || m.want.Memory != nil || m.want.ComputeCapability != nil
}

// requestedMaker returns the maker that the configuration asks for; nvidia if it names none.
func (m *gpuMatcher) requestedMaker() string {
	for _, r := range m.requests {
		if m.maker == "" && r.Maker != "" {
			return r.Maker
		}
	}
	return cmp.Or(m.maker, gpu.Nvidia)
}

// smallestSize returns the least memory that an acceptable card is sold with; 0: not known.
func (m *gpuMatcher) smallestSize() (size spec.GB) {
	if m.want.Memory != nil && m.want.Memory.Min != nil {
		size = *m.want.Memory.Min
	}
	var named spec.GB
	for _, r := range m.requests {
		model, _ := gpu.Find(r.Names[0])
		for _, sold := range model.Sizes {
			if has := spec.GB(sold); (r.SizeGB == 0 || r.SizeGB == sold) && has >= size && (named == 0 || has < named) {
				named = has
			}
		}
	}
	return max(size, named)
}
