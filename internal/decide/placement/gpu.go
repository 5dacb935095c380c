package placement

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Drivers report less memory than a card is sold with: an L4 of 24GB has 22.5GB.
// These factors are the tolerance when that is compared with a configuration.
const (
	lowerTolerance = 1.08
	upperTolerance = 1.02
)

// pickGPUs returns the GPUs that a replica would get, or why there are not enough:
// as few as suffice on owned machines, all on rented ones.
func pickGPUs(want *spec.GPU, o dstack.Offer, taken dstack.Allocation) ([]dstack.GPU, []string) {
	if want == nil || (want.Count.Max != nil && *want.Count.Max == 0) {
		if want != nil && o.OwnedInstance == "" && len(o.Hardware.GPUs) > 0 {
			return nil, []string{"it has a GPU, none is asked for"}
		}
		return nil, nil
	}
	least := 1
	if want.Count.Min != nil {
		least = *want.Count.Min
	}
	if len(o.Hardware.GPUs) == 0 {
		if least == 0 {
			return nil, nil
		}
		return nil, []string{"it has no GPU"}
	}
	var suit, free []dstack.GPU
	for _, g := range o.Hardware.GPUs {
		if !isSuitable(want, g) {
			continue
		}
		suit = append(suit, g)
		if _, held := taken.GPUs[g.ID]; !held {
			free = append(free, g)
		}
	}
	picked := pickCount(want, o, free, least)
	switch {
	case len(suit) < least:
		return nil, []string{fmt.Sprintf("%s, %s asked for", describeGPUs(o.Hardware.GPUs), want.String())}
	case len(picked) < least:
		return nil, []string{fmt.Sprintf("%d of its %d suitable GPUs free, %d asked for", len(free), len(suit), least)}
	case want.TotalMemory != nil && !isInMemoryRange(*want.TotalMemory, totalMemory(picked)):
		return nil, []string{fmt.Sprintf("its GPUs have %s together, %s asked for", formatSize(toGB(totalMemory(picked))), want.TotalMemory.String())}
	}
	return picked, nil
}

// pickCount returns as many of the free GPUs as the count allows: the fewest that
// reach the total memory on owned machines, all on rented ones, where no other
// replica could use the rest.
func pickCount(want *spec.GPU, o dstack.Offer, free []dstack.GPU, least int) []dstack.GPU {
	most := len(free)
	if want.Count.Max != nil {
		most = min(most, *want.Count.Max)
	}
	n := min(least, most)
	if o.OwnedInstance == "" {
		n = most
	}
	for want.TotalMemory != nil && n < most && !isInMemoryRange(*want.TotalMemory, totalMemory(free[:n])) {
		n++
	}
	return free[:max(n, 0)]
}

func isSuitable(want *spec.GPU, g dstack.GPU) bool {
	if maker := want.Maker(); maker != "" && maker != g.Maker {
		return false
	}
	named := func(name string) bool { return strings.EqualFold(name, g.Name) }
	if len(want.Name) > 0 && !slices.ContainsFunc(want.Name, named) {
		return false
	}
	if want.Memory != nil && !isInMemoryRange(*want.Memory, g.MemoryMiB) {
		return false
	}
	if cc := want.ComputeCapability; cc != nil && g.Capability != [2]int{} {
		return slices.Compare(g.Capability[:], cc[:]) >= 0
	}
	return true
}

func isInMemoryRange(r spec.Range[spec.GB], mib int64) bool {
	has := toGB(mib)
	return (r.Min == nil || has*lowerTolerance >= *r.Min) && (r.Max == nil || has <= *r.Max*upperTolerance)
}

func totalMemory(gpus []dstack.GPU) (mib int64) {
	for _, g := range gpus {
		mib += g.MemoryMiB
	}
	return mib
}

// describeGPUs names a machine's GPUs: it has 2×A100 80GB.
func describeGPUs(gpus []dstack.GPU) string {
	counts, order := map[string]int{}, []string{}
	for _, g := range gpus {
		name := g.Name + " " + human.Gigabytes(g.MemoryMiB)
		if counts[name] == 0 {
			order = append(order, name)
		}
		counts[name]++
	}
	for i, name := range order {
		order[i] = fmt.Sprintf("%d×%s", counts[name], name)
	}
	return "it has " + strings.Join(order, ", ")
}
