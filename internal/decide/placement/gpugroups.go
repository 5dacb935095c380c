package placement

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
)

// GPUGroup is what offers with the same GPUs have in common. Prices are in dollars per hour.
type GPUGroup struct {
	GPU          dstack.GPU // with the memory that it is sold with, which backends report differently
	Backend      string     // of all offers, if the groups are by backend
	Region       string     // of all offers, if they are by region, too
	Backends     []string
	Regions      []string
	Availability []dstack.Availability // each once, in the order of the offers
	HasSpot      bool
	HasOnDemand  bool
	Counts       [2]int     // the fewest and the most GPUs of an offer
	GPUPrices    [2]float64 // the lowest and the highest, for each GPU
	Prices       [2]float64 // the same for whole offers
}

// GPUGrouping says what else must be the same in a group.
type GPUGrouping struct{ Backend, Region, Count bool }

// gpuKey identifies a group.
type gpuKey struct {
	maker, name     string
	memoryMiB       int64
	count           int
	backend, region string
}

// GroupByGPU groups offers by their GPUs. Offers without GPUs are left out; one with several kinds is in several groups.
// The groups that can be had come first, then the cheapest.
func GroupByGPU(offers []dstack.Offer, by GPUGrouping) []GPUGroup {
	var groups []*GPUGroup
	byKey := map[gpuKey]*GPUGroup{}
	for i := range offers {
		o := &offers[i]
		for _, card := range listKinds(o.Hardware.GPUs) {
			key := gpuKey{maker: card.gpu.Maker, name: card.gpu.Name, memoryMiB: card.gpu.MemoryMiB}
			if by.Count {
				key.count = card.count
			}
			if by.Backend {
				key.backend = o.Backend
			}
			if by.Region {
				key.region = o.Region
			}
			g := byKey[key]
			if g == nil {
				price := o.Price / float64(card.count)
				g = &GPUGroup{GPU: card.gpu, Backend: key.backend, Region: key.region, Counts: [2]int{card.count, card.count},
					GPUPrices: [2]float64{price, price}, Prices: [2]float64{o.Price, o.Price}}
				byKey[key] = g
				groups = append(groups, g)
			}
			g.add(o, card.count)
		}
	}
	result := make([]GPUGroup, 0, len(groups))
	for _, g := range groups {
		slices.Sort(g.Backends)
		slices.Sort(g.Regions)
		result = append(result, *g)
	}
	slices.SortStableFunc(result, compareGPUGroups)
	return result
}

func (g *GPUGroup) add(o *dstack.Offer, count int) {
	price := o.Price / float64(count)
	g.Counts = [2]int{min(g.Counts[0], count), max(g.Counts[1], count)}
	g.GPUPrices = [2]float64{min(g.GPUPrices[0], price), max(g.GPUPrices[1], price)}
	g.Prices = [2]float64{min(g.Prices[0], o.Price), max(g.Prices[1], o.Price)}
	g.HasSpot, g.HasOnDemand = g.HasSpot || o.Spot, g.HasOnDemand || !o.Spot
	g.Backends = appendNew(g.Backends, []string{o.Backend})
	g.Regions = appendNew(g.Regions, []string{o.Region})
	if availability := o.ShownAvailability(); !slices.Contains(g.Availability, availability) {
		g.Availability = append(g.Availability, availability)
	}
}

// CanBeHad reports whether an offer of the group may be available.
func (g *GPUGroup) CanBeHad() bool {
	return slices.ContainsFunc(g.Availability, func(a dstack.Availability) bool { return a != dstack.NotAvailable && a != dstack.NoQuota })
}

func compareGPUGroups(a, b GPUGroup) int {
	if has, other := a.CanBeHad(), b.CanBeHad(); has != other {
		if has {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.GPUPrices[0], b.GPUPrices[0]), cmp.Compare(a.GPUPrices[1], b.GPUPrices[1]), cmp.Compare(a.GPU.Name, b.GPU.Name),
		cmp.Compare(a.GPU.MemoryMiB, b.GPU.MemoryMiB), cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Counts[0], b.Counts[0]))
}

// countedGPU is how many GPUs of a kind a machine has.
type countedGPU struct {
	gpu   dstack.GPU
	count int
}

func listKinds(cards []dstack.GPU) (kinds []countedGPU) {
	for i := range cards {
		card := dstack.GPU{Maker: cards[i].Maker, Name: cards[i].Name, MemoryMiB: int64(gpu.SizeOf(cards[i].Name, cards[i].MemoryMiB) * 1024)}
		at := slices.IndexFunc(kinds, func(k countedGPU) bool { return k.gpu == card })
		if at < 0 {
			kinds = append(kinds, countedGPU{card, 1})
		} else {
			kinds[at].count++
		}
	}
	return kinds
}
