package server

import (
	"cmp"
	"fmt"
	"slices"

	"dstack/internal/api"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
)

// maxGroupedOffers is how many offers are grouped at most. A cloud has a few thousand that differ in their GPUs, region and
// market.
const maxGroupedOffers = 20_000

// readGrouping reads by what offers with the same GPUs are grouped.
func readGrouping(fields []string) (by placement.GPUGrouping, err error) {
	for _, field := range fields {
		switch field {
		case api.GroupByGPU:
		case api.GroupByBackend:
			by.Backend = true
		case api.GroupByRegion:
			by.Region = true
		case api.GroupByCount:
			by.Count = true
		default:
			return by, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("offers cannot be grouped by %q", field),
				Hint: "group by gpu, backend, region or count"}
		}
	}
	if by.Region && !by.Backend {
		return by, &dstack.Error{Kind: dstack.Invalid, Message: "offers cannot be grouped by region without the backend", Hint: "group by gpu, backend and region"}
	}
	return by, nil
}

// groupByGPU returns the GPUs of the offers that meet requirements, also those of rented machines that run nothing.
func (s *Server) groupByGPU(
	c *apiCall, need dstack.Requirements, by placement.GPUGrouping, used map[dstack.InstanceID]dstack.Allocation,
) ([]api.GPUGroup, error) {
	need.OnePerGPU, need.Project = true, c.project.ID
	found := s.backends.Offers(c.ctx, c.project.Name, need, maxGroupedOffers)
	all, _, err := s.addRented(c, nil, found.Offers)
	if err != nil {
		return nil, err
	}
	placements := placement.Rank(need, all, used).Placements(maxGroupedOffers)
	offers := make([]dstack.Offer, 0, len(placements))
	for _, p := range placements {
		offers = append(offers, p.Offer.ShowTo(p.Claim))
	}
	groups := []api.GPUGroup{}
	for _, g := range placement.GroupByGPU(offers, by) {
		groups = append(groups, buildGPUGroup(g))
	}
	return groups, nil
}

func buildGPUGroup(g placement.GPUGroup) api.GPUGroup {
	built := api.GPUGroup{Name: g.GPU.Name, MemoryMiB: g.GPU.MemoryMiB, Vendor: g.GPU.Maker, Count: api.CountRange{Min: g.Counts[0], Max: g.Counts[1]},
		Price: api.DollarsRange{Min: g.GPUPrices[0], Max: g.GPUPrices[1]}, OfferPrice: api.DollarsRange{Min: g.Prices[0], Max: g.Prices[1]},
		Backend: g.Backend, Region: g.Region}
	for _, a := range g.Availability {
		built.Availability = append(built.Availability, string(a))
	}
	if g.HasSpot {
		built.Spot = append(built.Spot, "spot")
	}
	if g.HasOnDemand {
		built.Spot = append(built.Spot, "on-demand")
	}
	if g.Backend == "" {
		built.Backends = g.Backends
	}
	if g.Region == "" {
		built.Regions = slices.DeleteFunc(slices.Clone(g.Regions), func(region string) bool { return region == "" })
	}
	return built
}

// listGPUs returns the GPUs that a configuration could get, in groups.
func (s *Server) listGPUs(c *apiCall, in v022.GPUQuery) (wire.GPUAnswer, error) {
	by, err := readGrouping(in.GroupBy)
	if err != nil {
		return wire.GPUAnswer{}, err
	}
	_, need, err := buildOfferNeed(c, in.Offers)
	if err != nil {
		return wire.GPUAnswer{}, err
	}
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return wire.GPUAnswer{}, err
	}
	groups, err := s.groupByGPU(c, need, by, used)
	if err != nil {
		return wire.GPUAnswer{}, err
	}
	if in.Reverse {
		slices.SortStableFunc(groups, compareReverse)
	}
	return wire.GPUAnswer{Groups: groups}, nil
}

// compareReverse orders the dearest offers first, those that can be had before the others.
func compareReverse(a, b api.GPUGroup) int {
	if has := canBeHad(a); has != canBeHad(b) {
		if has {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(b.OfferPrice.Min, a.OfferPrice.Min), cmp.Compare(b.OfferPrice.Max, a.OfferPrice.Max))
}

func canBeHad(g api.GPUGroup) bool {
	return slices.ContainsFunc(g.Availability, func(one string) bool { return one != string(dstack.NotAvailable) && one != string(dstack.NoQuota) })
}
