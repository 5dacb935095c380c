// Package placement decides which offers suit a replica, in what order, and why
// the rest do not. It also adds up what replicas hold of instances.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// FindPlacements ranks offers for a waiting replica. outdated are the unfinished
// replicas of other templates of its run. isBlocked says that no offer suits, and
// that one would if the outdated replicas left.
func FindPlacements(
	need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation, outdated []dstack.Replica,
) (placements []dstack.Placement, rejections []dstack.Rejection, isBlocked bool) {
	placements, rejections = RankOffers(need, offers, used)
	if len(placements) > 0 || len(outdated) == 0 {
		return placements, rejections, false
	}
	freed, _ := RankOffers(need, offers, ReleaseAllocations(used, outdated))
	return nil, rejections, len(freed) > 0
}

// RankOffers splits offers into placements, best first, and rejections with their
// reasons. used is what is allocated of owned machines.
func RankOffers(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation) ([]dstack.Placement, []dstack.Rejection) {
	var placements []dstack.Placement
	var rejections []dstack.Rejection
	for _, o := range offers {
		taken := dstack.Allocation{}
		if o.OwnedInstance != "" {
			taken = used[o.OwnedInstance]
		}
		claim, whyNot := matchOffer(need, o, taken)
		if len(whyNot) > 0 {
			rejections = append(rejections, dstack.Rejection{Offer: o, Reason: strings.Join(whyNot, "; ")})
			continue
		}
		placements = append(placements, dstack.Placement{Offer: o, Claim: claim, Free: describeFree(o, taken)})
	}
	slices.SortStableFunc(placements, func(a, b dstack.Placement) int {
		return cmp.Or(ownedFirst(a)-ownedFirst(b), cmp.Compare(a.Offer.Price, b.Offer.Price))
	})
	return placements, rejections
}

// ownedFirst is a sort key: owned machines are paid for already.
func ownedFirst(p dstack.Placement) int {
	if p.Offer.OwnedInstance != "" {
		return 0
	}
	return 1
}

// onlyGlobalAdmins is why a machine without containers does not suit another user. Its
// processes have the rights of the server's own user: they can read what belongs to it.
const onlyGlobalAdmins = "it runs plain processes with the server's own rights, which only global admins may use; " +
	"install Docker there to use containers"

// IsForGlobalAdmins reports whether an offer is rejected because the user is no global
// admin.
func IsForGlobalAdmins(r dstack.Rejection) bool {
	return strings.Contains(r.Reason, onlyGlobalAdmins)
}

// matchOffer returns what a replica would claim of a machine, or every reason why
// the machine does not suit.
func matchOffer(need dstack.Requirements, o dstack.Offer, taken dstack.Allocation) (dstack.Claim, []string) {
	why := compareFilters(need, o)
	if need.NeedsImage && !o.Engine.Containers {
		why = append(why, "it runs plain processes, and `image` needs containers")
	}
	if need.OuterDir != "" && !o.Engine.Containers {
		why = append(why, fmt.Sprintf("it runs plain processes, and the `working_dir` %s is a folder of a container", need.OuterDir))
	}
	if need.OuterPath != "" && !o.Engine.Containers {
		why = append(why, fmt.Sprintf("it runs plain processes, which have no files outside of their folder, and %s is outside", need.OuterPath))
	}
	if !need.IsGlobalAdmin && !o.Engine.Containers {
		why = append(why, onlyGlobalAdmins)
	}
	why = append(why, compareMounts(need, o)...)
	claim := dstack.Claim{Offer: o.Type}
	why = append(why, compareSizes(need, o, taken, &claim)...)
	gpus, whyNot := pickGPUs(need.Resources.GPU, o, taken)
	claim.GPUs = gpus
	why = append(why, whyNot...)
	if o.Engine.SharesPorts && !need.AnyPort {
		if holder, held := taken.Ports[need.Port]; held {
			why = append(why, fmt.Sprintf("port %d is taken by %s; plain processes share the machine's ports", need.Port, holder))
		}
		claim.Ports = []int{need.Port}
	}
	return claim, why
}

// compareFilters returns why backend, region, type, spot or price do not suit.
func compareFilters(need dstack.Requirements, o dstack.Offer) (why []string) {
	among := func(what, value, field string, allowed []string) {
		same := func(a string) bool { return strings.EqualFold(a, value) }
		if len(allowed) > 0 && !slices.ContainsFunc(allowed, same) {
			why = append(why, fmt.Sprintf("its %s is %s, and `%s` allows only %s", what, value, field, strings.Join(allowed, ", ")))
		}
	}
	among("backend", o.Backend, "backends", need.Backends)
	among("region", o.Region, "regions", need.Regions)
	among("instance type", o.Type, "instance_types", need.InstanceTypes)
	switch isOwned := o.OwnedInstance != ""; {
	case isOwned:
		among("name", o.Type, "instance_name", nonEmpty(need.InstanceName))
	case need.InstanceName != "":
		why = append(why, "it would be rented, and `instance_name` allows only the existing machine "+need.InstanceName)
	case need.OwnedOnly:
		why = append(why, "it would be rented, and `creation_policy` is reuse")
	}
	if need.Spot != nil && *need.Spot != o.Spot {
		why = append(why, map[bool]string{true: "it is not a spot machine", false: "it is a spot machine"}[*need.Spot])
	}
	if need.MaxPrice != nil && o.Price > *need.MaxPrice {
		why = append(why, fmt.Sprintf("it costs $%g an hour, $%g at most", o.Price, *need.MaxPrice))
	}
	return why
}

// compareSizes returns why CPUs, memory or disk do not suit. On an owned machine only
// sizes that the configuration asks for count, only their lower bounds, and only
// what others do not hold; they are added to claim.
func compareSizes(need dstack.Requirements, o dstack.Offer, taken dstack.Allocation, claim *dstack.Claim) []string {
	res, hw := need.Resources, o.Hardware
	mine := o.OwnedInstance != ""
	var why []string
	if arch := string(res.CPUArch); arch != "" && hw.Arch != "" && arch != hw.Arch {
		why = append(why, fmt.Sprintf("its processors are %s, %s asked for", hw.Arch, arch))
	}
	if !mine || res.Explicit.CPU {
		why = append(why, compareSize("CPUs", res.CPU, hw.CPUs, taken.CPUs, mine)...)
	}
	if !mine || res.Explicit.Memory {
		why = append(why, compareSize("of memory", res.Memory, toGB(hw.MemoryMiB), toGB(taken.MemoryMiB), mine)...)
	}
	if res.Disk != nil && (!mine || res.Explicit.Disk) {
		why = append(why, compareSize("of disk", res.Disk.Size, toGB(hw.DiskMiB), toGB(taken.DiskMiB), mine)...)
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

// compareSize returns why a size does not suit; nil: it does.
func compareSize[T int | spec.GB](what string, want spec.Range[T], total, held T, mine bool) []string {
	has := total - held
	switch {
	case want.Min != nil && has < *want.Min && held > 0:
		return []string{fmt.Sprintf("it has %s %s, %s free, %s asked for", formatSize(total), what, formatSize(has), formatSize(*want.Min))}
	case want.Min != nil && has < *want.Min:
		return []string{fmt.Sprintf("it has %s %s, %s asked for", formatSize(total), what, formatSize(*want.Min))}
	case !mine && want.Max != nil && has > *want.Max:
		return []string{fmt.Sprintf("it has %s %s, %s at most", formatSize(total), what, formatSize(*want.Max))}
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

func toGB(mib int64) spec.GB { return spec.GB(float64(mib) / 1024) }

// formatSize formats a count, or gigabytes as in configurations.
func formatSize[T int | spec.GB](v T) string {
	if g, ok := any(v).(spec.GB); ok {
		return fmt.Sprintf("%.4gGB", float64(g))
	}
	return fmt.Sprint(v)
}

// describeFree describes what is free of an owned machine.
func describeFree(o dstack.Offer, taken dstack.Allocation) string {
	if o.OwnedInstance == "" || len(o.Hardware.GPUs) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d GPUs free", len(o.Hardware.GPUs)-len(taken.GPUs), len(o.Hardware.GPUs))
}
