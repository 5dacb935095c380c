package host

import (
	"strings"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// FindMissing returns what a host lacks of the resources that its fleet asks for; nil: it has
// them. Its disk counts when it is checked for the first time since it was applied: what
// replicas write does not make a host unfit for its fleet.
func FindMissing(h dstack.Host, found dstack.HostFacts) *Failure {
	want := h.Resources
	if isAccepted(h) && h.Check.AppliedAt.Equal(h.AppliedAt) {
		want.Disk = nil
	}
	offer := dstack.Offer{OwnedInstance: h.ID, Hardware: found.Hardware}
	var lacks, changes []string
	for _, part := range splitResources(want) {
		// IsGlobalAdmin: rights to the host are no matter of its resources.
		need := dstack.Requirements{Resources: part, AnyPort: true, IsGlobalAdmin: true}
		if _, rejected := placement.RankOffers(need, []dstack.Offer{offer}, nil); len(rejected) > 0 {
			lacks = append(lacks, rejected[0].Reason)
			for _, e := range rejected[0].Edits {
				changes = append(changes, describeEdit(e))
			}
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	hint := "add what is missing to the host, or remove it from the fleet"
	if len(changes) > 0 {
		hint = "in `resources` of the fleet, " + strings.Join(changes, " and ") + ", or remove the host from the fleet"
	}
	return &Failure{
		Step: dstack.HostStepResources, Kind: dstack.Unsupported,
		Message: "it has less than its fleet asks for: " + strings.Join(lacks, "; "), Hint: hint,
	}
}

// splitResources returns resources that ask for one thing each, so that everything that is
// missing is named.
func splitResources(want spec.Resources) []spec.Resources {
	cpu := spec.Resources{CPU: want.CPU, CPUArch: want.CPUArch}
	cpu.Explicit.CPU = want.Explicit.CPU
	memory := spec.Resources{Memory: want.Memory}
	memory.Explicit.Memory = want.Explicit.Memory
	disk := spec.Resources{Disk: want.Disk}
	disk.Explicit.Disk = want.Explicit.Disk
	return []spec.Resources{cpu, memory, disk, {GPU: want.GPU}}
}

func describeEdit(e dstack.Edit) string {
	field := strings.TrimPrefix(e.Field, "resources.")
	if e.Value == "" {
		return "remove " + field
	}
	return "write " + field + ": " + e.Value
}
