package cloud

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	availabilityInterval = time.Hour       // of asking a region again
	availabilityRetry    = 5 * time.Minute // after a failure
	availabilityPause    = 10 * time.Second
	availabilityTimeout  = time.Minute
)

// availability is where the types of an account can be had, as far as its cloud says.
type availability struct {
	mu      sync.Mutex
	regions map[string]regionAvailability
}

type regionAvailability struct {
	zones   map[string][]string // by type; nil: not known
	quotas  []cloud.Quota
	nextAt  time.Time
	isKnown bool
}

// get returns what is known of a region.
func (a *availability) get(region string) regionAvailability {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.regions[region]
}

func (a *availability) set(region string, r regionAvailability) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.regions == nil {
		a.regions = map[string]regionAvailability{}
	}
	a.regions[region] = r
}

// zonesOf returns the zones that have a type; none: they are not known.
func (a *availability) zonesOf(region, kind string) []string { return a.get(region).zones[kind] }

// find returns whether an offer can be had.
func (a *availability) find(o *dstack.Offer) dstack.Availability {
	r := a.get(o.Region)
	if !r.isKnown {
		return dstack.AvailabilityUnknown
	}
	zones, isOffered := r.zones[o.Type]
	switch {
	case r.zones != nil && (!isOffered || o.Zone != "" && !slices.Contains(zones, o.Zone)):
		return dstack.NotAvailable
	case !hasQuota(r.quotas, o):
		return dstack.NoQuota
	default:
		return dstack.AvailabilityUnknown // nobody knows how many are left
	}
}

// hasQuota reports whether the quotas of a region allow an offer in an account without other machines.
func hasQuota(quotas []cloud.Quota, o *dstack.Offer) bool {
	for _, q := range quotas {
		if q.Spot != o.Spot || q.CPUs < 0 || !slices.ContainsFunc(q.Types, func(pattern string) bool {
			matches, err := path.Match(pattern, o.Type)
			return err == nil && matches
		}) {
			continue
		}
		needed := o.Hardware.CPUs
		if q.IsGPU {
			needed = countGPUs(o, q.GPU)
		}
		if needed > q.CPUs {
			return false
		}
	}
	return true
}

// countGPUs returns how many GPUs of a model an offer has; an empty model means any.
func countGPUs(o *dstack.Offer, model string) (count int) {
	for _, g := range o.Hardware.GPUs {
		if model == "" || strings.EqualFold(g.Name, model) {
			count++
		}
	}
	return count
}

// readAvailability asks the cloud about one region that is due.
func (b *Backend) readAvailability(ctx context.Context) (time.Duration, error) {
	provider, ok := b.Provider.(cloud.Availability)
	if !ok || b.Prices == nil {
		return availabilityInterval, nil
	}
	if err, wasMade := b.access.get(); err != nil && len(b.unusableRegions()) == 0 || !wasMade {
		return availabilityPause, nil
	}
	now := time.Now()
	regions := b.usableRegions()
	if len(regions) == 0 {
		regions = b.Prices.Table().Regions()
	}
	next := now.Add(availabilityInterval)
	for _, region := range regions {
		if due := b.availability.get(region).nextAt; due.After(now) {
			next = earlier(next, due)
			continue
		}
		b.readRegion(ctx, provider, region, now)
		return 0, ctx.Err()
	}
	return cmp.Or(max(next.Sub(now), availabilityPause), availabilityPause), nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// readRegion asks the cloud about a region. What is not learned stays as it is.
func (b *Backend) readRegion(ctx context.Context, provider cloud.Availability, region string, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, availabilityTimeout)
	defer cancel()
	r := b.availability.get(region)
	r.nextAt = now.Add(availabilityInterval)
	zones, err := provider.ListZones(ctx, region)
	if err == nil {
		r.zones, r.isKnown = zones, true
		var quotas []cloud.Quota
		if quotas, err = provider.ListQuotas(ctx, region); err == nil {
			r.quotas = quotas
		}
	}
	if err != nil {
		r.nextAt = now.Add(availabilityRetry)
		if _, ok := b.failures.Admit("availability "+region, err.Error(), now); ok {
			b.Log.Info("it is not known what can be rented in a region, so it is tried", "backend", b.Key, "region", region, "err", err)
		}
	}
	b.availability.set(region, r)
}
