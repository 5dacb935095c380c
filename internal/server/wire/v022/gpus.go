package v022

import (
	"slices"

	"dstack/internal/api"
	"dstack/internal/server/wire"
)

// ListGPUs is the body of gpus/list.
type ListGPUs struct {
	RunSpec              RunSpec   `json:"run_spec"`
	GroupBy              *[]string `json:"group_by"`
	Reverse              bool      `json:"reverse,omitempty"`
	FullOffers           bool      `json:"full_offers,omitempty"`           // always so: a machine is offered as a whole
	UnallocatedResources bool      `json:"unallocated_resources,omitempty"` // offers are always those that are free
}

// GPUQuery is what a client asks about GPUs.
type GPUQuery struct {
	Offers  api.GetOffers
	GroupBy []string
	Reverse bool
}

// DecodeListGPUs returns the query.
func DecodeListGPUs(in ListGPUs) (GPUQuery, error) {
	offers, err := in.RunSpec.decodeOffers()
	return GPUQuery{Offers: offers, GroupBy: valueOr(in.GroupBy, nil), Reverse: in.Reverse}, err
}

// GPUs answers gpus/list.
type GPUs struct {
	GPUs []api.GPUGroup `json:"gpus"`
	CPUs *[]struct{}    `json:"cpus"` // null: groups of offers without GPUs, which clients of 0.22.5 do not show
}

// BuildGPUs returns the groups whose maker the clients know, under the names of backends that they know.
func BuildGPUs(_ ListGPUs, answer wire.GPUAnswer) GPUs {
	built := GPUs{GPUs: []api.GPUGroup{}}
	for _, g := range answer.Groups {
		vendor := ifKnown(g.Vendor, knownVendors)
		if vendor == nil {
			continue
		}
		g.Vendor = *vendor
		if g.Backend != "" {
			g.Backend = encodeBackend(g.Backend)
		}
		backends := make([]string, 0, len(g.Backends))
		for _, name := range g.Backends {
			if name = encodeBackend(name); !slices.Contains(backends, name) {
				backends = append(backends, name)
			}
		}
		g.Backends = backends
		built.GPUs = append(built.GPUs, g)
	}
	return built
}
