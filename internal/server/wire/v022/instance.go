package v022

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/server/wire"
)

// ListInstances is the body of instances/list of all projects.
type ListInstances struct {
	ProjectNames    []string   `json:"project_names,omitempty"`
	FleetIDs        []string   `json:"fleet_ids,omitempty"`
	OnlyActive      bool       `json:"only_active,omitempty"`
	IncludeImported bool       `json:"include_imported,omitempty"`
	PrevCreatedAt   *time.Time `json:"prev_created_at"`
	PrevID          *string    `json:"prev_id"`
	Limit           *int       `json:"limit" minimum:"0" maximum:"1000"`
	Ascending       bool       `json:"ascending,omitempty"`
}

// IsOptionalBody implements wire.OptionalBody.
func (ListInstances) IsOptionalBody() {}

// DecodeListInstances returns the query, which BuildInstances applies.
func DecodeListInstances(ListInstances) (wire.Null, error) { return wire.Null{}, nil }

// maxInstances is how many machines a list has.
const maxInstances = 1000

// BuildInstances returns the hosts of fleets, newest first.
func BuildInstances(in ListInstances, answers []wire.FleetAnswer) []Instance {
	list := []Instance{}
	for _, a := range answers {
		fleet := BuildFleet(a)
		isNamed := slices.ContainsFunc(in.ProjectNames, func(name string) bool { return strings.EqualFold(name, fleet.ProjectName) })
		if len(in.ProjectNames) > 0 && !isNamed || len(in.FleetIDs) > 0 && !slices.Contains(in.FleetIDs, fleet.ID) {
			continue
		}
		for _, i := range fleet.Instances {
			if !in.OnlyActive || i.Status != "terminated" && i.Status != "terminating" {
				list = append(list, i)
			}
		}
	}
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(b.Created.Compare(a.Created.Time), strings.Compare(a.ID, b.ID))
	})
	if in.Ascending {
		slices.Reverse(list)
	}
	if in.PrevID != nil {
		if i := slices.IndexFunc(list, func(one Instance) bool { return one.ID == *in.PrevID }); i >= 0 {
			list = list[i+1:]
		}
	}
	return list[:min(len(list), valueOr(in.Limit, maxInstances))]
}

// GetInstance is the body of instances/get.
type GetInstance struct {
	ID string `json:"id"`
}

// encodeInstanceType returns a type from its form in 0.18.10.
func encodeInstanceType(old api.InstanceType) InstanceType {
	hw := old.Resources
	gpus := make([]HardwareGPU, 0, len(hw.GPUs))
	for _, g := range hw.GPUs {
		gpus = append(gpus, HardwareGPU{Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	return InstanceType{Name: old.Name, Resources: Hardware{CPUs: hw.CPUs, MemoryMiB: hw.MemoryMiB, GPUs: gpus, Spot: hw.Spot, Disk: hw.Disk}}
}
