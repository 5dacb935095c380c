package cloud

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dstack/internal/backend"
	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/gpu"
)

// Prices has the types of machines of the account, with their prices. *catalogue.Prices implements it.
type Prices interface {
	// Table returns the present table. It never waits, and never returns nil.
	Table() *catalogue.Table

	// Problem returns why the table may be old; nil: it is not.
	Problem() error
}

// DiskLimits are the sizes of the disks that machines boot from, where a type has none of its own.
type DiskLimits struct{ MinMiB, MaxMiB int64 }

// maxOffers is how many offers Offers returns of those that suit.
const maxOffers = 500

var _ backend.Searcher = (*Backend)(nil)

// Offers returns the cheapest machines that can be rented and suit, and some that nearly do.
func (b *Backend) Offers(ctx context.Context, need dstack.Requirements) ([]dstack.Offer, error) {
	found, err := b.SearchOffers(ctx, need, maxOffers)
	return found.Offers, err
}

// SearchOffers implements backend.Searcher.
func (b *Backend) SearchOffers(ctx context.Context, need dstack.Requirements, limit int) (backend.OfferSearch, error) {
	if err := ctx.Err(); err != nil {
		return backend.OfferSearch{}, err
	}
	if err := b.explainNoAccess(); err != nil || b.Prices == nil {
		return backend.OfferSearch{}, err
	}
	filter := placement.NewTypeFilter(need)
	explainNoDisks := b.newDiskCheck(need)
	found := b.Prices.Table().Find(catalogue.Query{
		Offered: b.usableRegions(), Regions: addRegionsOfZones(need.Regions, b.Prices.Table().Regions()), Types: need.InstanceTypes, Spot: need.Spot, MaxPrice: need.MaxPrice,
		IsPlace:  b.newPlaceCheck(need),
		Template: dstack.Offer{Backend: b.Type, Key: b.Key, IsRemote: true, Engine: docker.Capabilities()},
		Check: func(o *dstack.Offer) int {
			o.Hardware.GPUs = nameGPUs(o.Hardware.GPUs)
			if o.Hardware.DiskMiB == 0 {
				o.Hardware.DiskMiB = b.Disk.choose(need)
			}
			o.Unusable = explainNoDisks(o.Type)
			return filter.Check(o)
		},
		Availability: b.availability.find,
		Limit:        limit,
		OnePerGPU:    need.OnePerGPU,
		Flags:        catalogue.FlagsOf(b.Type),
	})
	search := backend.OfferSearch{More: backend.MoreOffers{Suitable: found.MoreSuitable, Unsuited: found.MoreUnsuited, HighestPrice: found.HighestPrice}}
	unusable := b.unusableRegions()
	for _, region := range slices.Sorted(maps.Keys(unusable)) {
		search.Missing = append(search.Missing, unusable[region])
	}
	for _, o := range slices.Concat(found.Offers, found.Nearest) {
		search.Offers = append(search.Offers, b.splitByZone(o, need)...)
	}
	if problem := b.Prices.Problem(); problem != nil {
		search.Notes = append(search.Notes, fmt.Sprintf("%s: prices may be old: %s", b.Key, shortenProblems(problem)))
	}
	return search, nil
}

// shortenProblems returns the first of several problems in one line, and how many more there are.
func shortenProblems(problems error) string {
	lines := strings.Split(problems.Error(), "\n")
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%s, and %d more", lines[0], len(lines)-1)
}

// newDiskCheck returns why a type cannot mount the volumes of a replica; empty: it can, or there are none.
func (b *Backend) newDiskCheck(need dstack.Requirements) func(instanceType string) string {
	provider, ok := b.Provider.(cloud.DiskTypes)
	if !ok || need.Pin == nil || len(need.Pin.Zones) == 0 {
		return func(string) string { return "" }
	}
	return provider.ExplainNoDisks
}

// addRegionsOfZones adds to names of regions and zones the regions of those zones: most prices are those of whole regions.
func addRegionsOfZones(names, regions []string) []string {
	for _, region := range regions {
		if slices.ContainsFunc(names, func(name string) bool { return isZoneOf(name, region) }) {
			names = append(slices.Clone(names), region)
		}
	}
	return names
}

// isZoneOf reports whether a name is that of a zone of a region: us-east-1a of us-east-1, europe-west4-b of europe-west4.
func isZoneOf(name, region string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(name), strings.ToLower(region))
	return ok && (len(rest) == 1 && rest[0] >= 'a' || len(rest) == 2 && rest[0] == '-')
}

// newPlaceCheck returns whether a place suits the volumes of a replica, and is in the zones that it asks for; nil: every place
// does.
func (b *Backend) newPlaceCheck(need dstack.Requirements) func(region, zone string) bool {
	hasPin := need.Pin != nil && len(need.Pin.Zones) > 0
	if !hasPin && len(need.Zones) == 0 {
		return nil
	}
	return func(region, zone string) bool {
		if len(need.Zones) > 0 && !slices.ContainsFunc(need.Zones, func(name string) bool {
			return strings.EqualFold(name, zone) || zone == "" && isZoneOf(name, region)
		}) {
			return false
		}
		return !hasPin || slices.ContainsFunc(need.Pin.Zones, func(z dstack.Zone) bool {
			return z.Backend == b.Key && z.Region == region && (z.Name == "" || zone == "" || z.Name == zone)
		})
	}
}

// splitByZone returns an offer for each zone that has the type, so that the next zone is tried where one has none left. Where
// the zones are not known, the cloud chooses one.
func (b *Backend) splitByZone(o dstack.Offer, need dstack.Requirements) []dstack.Offer {
	if o.Zone != "" {
		return []dstack.Offer{o}
	}
	isPlace := b.newPlaceCheck(need)
	var offers []dstack.Offer
	for _, zone := range b.availability.zonesOf(o.Region, o.Type) {
		if isPlace == nil || isPlace(o.Region, zone) {
			split := o
			split.Zone = zone
			offers = append(offers, split)
		}
	}
	if len(offers) == 0 {
		return []dstack.Offer{o}
	}
	return offers
}

// choose returns the size of the disk of a machine: what is asked for, within what the cloud has.
func (l DiskLimits) choose(need dstack.Requirements) int64 {
	size := l.MinMiB
	if disk := need.Resources.Disk; disk != nil && disk.Size.Min != nil {
		size = max(size, int64(float64(*disk.Size.Min)*1024))
	}
	if l.MaxMiB > 0 {
		size = min(size, l.MaxMiB)
	}
	return size
}

// nameGPUs returns GPUs with the identifiers that Docker knows them by on the machine: their numbers, and for those of AMD
// their devices.
func nameGPUs(gpus []dstack.GPU) []dstack.GPU {
	const firstRenderDevice = 128
	named := slices.Clone(gpus)
	for i := range named {
		named[i].ID = fmt.Sprint(i)
		if strings.EqualFold(named[i].Maker, gpu.AMD) {
			named[i].ID = fmt.Sprintf("renderD%d", firstRenderDevice+i)
		}
	}
	return named
}
