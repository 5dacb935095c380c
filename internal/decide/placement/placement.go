// Package placement decides which offers and hosts suit, in what order, and
// why the rest do not.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// RankOffers splits offers into places, best first, and misfits with the reason.
// used is what is held of owned machines.
func RankOffers(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation) ([]dstack.Placement, []dstack.Rejection) {
	var places []dstack.Placement
	var misfits []dstack.Rejection
	for _, o := range offers {
		taken := dstack.Allocation{}
		if o.OwnedInstance != "" {
			taken = used[o.OwnedInstance]
		}
		claim, whyNot := fit(need, o, taken)
		if len(whyNot) > 0 {
			misfits = append(misfits, dstack.Rejection{Offer: o, Reason: strings.Join(whyNot, "; ")})
			continue
		}
		places = append(places, dstack.Placement{Offer: o, Claim: claim, Free: free(o, taken)})
	}
	slices.SortStableFunc(places, func(a, b dstack.Placement) int {
		return cmp.Or(owned(a)-owned(b), cmp.Compare(a.Offer.Price, b.Offer.Price))
	})
	return places, misfits
}

// owned sorts what is paid for already before what is not.
func owned(p dstack.Placement) int {
	if p.Offer.OwnedInstance != "" {
		return 0
	}
	return 1
}

// fit returns what a replica would hold of a machine, or every reason why it
// does not suit.
func fit(need dstack.Requirements, o dstack.Offer, taken dstack.Allocation) (dstack.Claim, []string) {
	why := filters(need, o)
	if need.NeedsImage && !o.Engine.Containers {
		why = append(why, "it runs plain processes, and `image` needs containers")
	}
	claim := dstack.Claim{Offer: o.Type}
	why = append(why, sizes(need, o, taken, &claim)...)
	gpus, whyNot := pickGPUs(need.Resources.GPU, o, taken)
	claim.GPUs = gpus
	why = append(why, whyNot...)
	if o.Engine.SharesPorts {
		if holder, held := taken.Ports[need.Port]; held {
			why = append(why, fmt.Sprintf("port %d is taken by %s; plain processes share the machine's ports", need.Port, holder))
		}
		claim.Ports = []int{need.Port}
	}
	return claim, why
}

// filters compares what the user said of backends, regions, types, spot and price.
func filters(need dstack.Requirements, o dstack.Offer) (why []string) {
	among := func(field, value string, allowed []string) {
		same := func(a string) bool { return strings.EqualFold(a, value) }
		if len(allowed) > 0 && !slices.ContainsFunc(allowed, same) {
			why = append(why, fmt.Sprintf("%s %s is not among %s", field, value, strings.Join(allowed, ", ")))
		}
	}
	among("backend", o.Backend, need.Backends)
	among("region", o.Region, need.Regions)
	among("instance type", o.Type, need.InstanceTypes)
	if need.Spot != nil && *need.Spot != o.Spot {
		why = append(why, map[bool]string{true: "it is not a spot machine", false: "it is a spot machine"}[*need.Spot])
	}
	if need.MaxPrice != nil && o.Price > *need.MaxPrice {
		why = append(why, fmt.Sprintf("it costs $%g an hour, $%g at most", o.Price, *need.MaxPrice))
	}
	return why
}

// sizes compares CPUs, memory and disk. On an owned machine only what
// somebody wrote down counts, only its lower bound, and only what others do
// not hold of it; it is then held.
func sizes(need dstack.Requirements, o dstack.Offer, taken dstack.Allocation, claim *dstack.Claim) []string {
	res, hw := need.Resources, o.Hardware
	mine := o.OwnedInstance != ""
	var why []string
	if !mine || res.Explicit.CPU {
		why = append(why, compare("CPUs", res.CPU, hw.CPUs, taken.CPUs, mine)...)
	}
	if !mine || res.Explicit.Memory {
		why = append(why, compare("of memory", res.Memory, gb(hw.MemoryMiB), gb(taken.MemoryMiB), mine)...)
	}
	if res.Disk != nil && (!mine || res.Explicit.Disk) {
		why = append(why, compare("of disk", res.Disk.Size, gb(hw.DiskMiB), gb(taken.DiskMiB), mine)...)
	}
	if !mine {
		return why
	}
	if res.Explicit.CPU {
		claim.CPUs = orZero(res.CPU.Min)
	}
	if res.Explicit.Memory {
		claim.MemoryMiB = int64(orZero(res.Memory.Min) * 1024)
	}
	if res.Explicit.Disk && res.Disk != nil {
		claim.DiskMiB = int64(orZero(res.Disk.Size.Min) * 1024)
	}
	return why
}

// compare says why a size does not suit, if it does not.
func compare[T int | spec.GB](what string, want spec.Range[T], total, held T, mine bool) []string {
	has := total - held
	switch {
	case want.Min != nil && has < *want.Min && held > 0:
		return []string{fmt.Sprintf("it has %s %s, %s free, %s asked for", size(total), what, size(has), size(*want.Min))}
	case want.Min != nil && has < *want.Min:
		return []string{fmt.Sprintf("it has %s %s, %s asked for", size(total), what, size(*want.Min))}
	case !mine && want.Max != nil && has > *want.Max:
		return []string{fmt.Sprintf("it has %s %s, %s at most", size(total), what, size(*want.Max))}
	default:
		return nil
	}
}

func orZero[T int | spec.GB](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}

func gb(mib int64) spec.GB { return spec.GB(float64(mib) / 1024) }

// size prints a count as it is, and gigabytes as users write them.
func size[T int | spec.GB](v T) string {
	if g, ok := any(v).(spec.GB); ok {
		return fmt.Sprintf("%.4gGB", float64(g))
	}
	return fmt.Sprint(v)
}

// free says what is left of an owned machine, for people.
func free(o dstack.Offer, taken dstack.Allocation) string {
	if o.OwnedInstance == "" || len(o.Hardware.GPUs) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d GPUs free", len(o.Hardware.GPUs)-len(taken.GPUs), len(o.Hardware.GPUs))
}
