package placement

import (
	"fmt"
	"slices"

	"dstack/internal/dstack"
)

// availabilityConstraint is that a machine to rent can be had, as far as its backend knows. It is the last one, so that
// plans list such machines before those that do not suit.
func availabilityConstraint() constraint {
	return constraint{name: dstack.ConstraintAvailability,
		fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return isMissing(o) },
		explain: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
			if o.Availability == dstack.NoQuota {
				return explanation{has: "no quota", reason: fmt.Sprintf("the quota of the account in %s does not allow it", o.Region),
					help: fmt.Sprintf("ask %s for more, or allow other `regions` or `instance_types`", o.Backend)}
			}
			return explanation{has: "not available", reason: fmt.Sprintf("%s has none left", placeOf(o)),
				help: "allow other `regions` or `instance_types`"}
		},
	}
}

// isMissing reports whether a machine to rent cannot be had now.
func isMissing(o *dstack.Offer) bool {
	return o.OwnedInstance == "" && (o.Availability == dstack.NotAvailable || o.Availability == dstack.NoQuota)
}

// placeOf names where a machine is: its zone, or its region.
func placeOf(o *dstack.Offer) string {
	if o.Zone != "" {
		return o.Zone
	}
	return o.Region
}

// Unavailable returns machines to rent that would suit if they could be had, the cheapest first, at most limit.
func (r *Ranking) Unavailable(limit int) (found []dstack.Placement) {
	last := int32(len(r.matcher.constraints) - 1)
	keys := make([]rentedKey, 0)
	for _, one := range r.rejected {
		if o := &r.offers[one.offer]; one.constraint == last && isMissing(o) {
			keys = append(keys, rentedKey{o.Price, one.offer, !o.Spot})
		}
	}
	limit = min(limit, len(keys))
	sortFirst(keys, limit)
	for _, key := range keys[:limit] {
		o := &r.offers[key.offer]
		found = append(found, dstack.Placement{Offer: *o, Claim: r.matcher.buildClaim(o, &noAllocation)})
	}
	return found
}

// zonedOffer identifies the offers that differ in their zone alone.
type zonedOffer struct {
	key, region, machineType string
	spot                     bool
}

// MergeZones leaves the first, which is the cheapest, of the machines to rent that differ only in their zone, for plans.
// A replica tries each zone.
func (r *Ranking) MergeZones() {
	seen := map[zonedOffer]bool{}
	isRepeated := func(index int32) bool {
		o := &r.offers[index]
		if o.OwnedInstance != "" || o.Zone == "" {
			return false
		}
		key := zoneOffer(o)
		if seen[key] {
			return true
		}
		seen[key] = true
		return false
	}
	slices.SortFunc(r.rented, compareRented)
	r.rented = slices.DeleteFunc(r.rented, func(key rentedKey) bool { return isRepeated(key.offer) })
	slices.SortStableFunc(r.rejected, func(a, b rejected) int { return int(b.constraint) - int(a.constraint) })
	r.rejected = slices.DeleteFunc(r.rejected, func(one rejected) bool { return isRepeated(one.offer) })
}

// NewIdleOffer returns the offer of a rented machine that runs nothing.
func NewIdleOffer(i dstack.Instance) dstack.Offer {
	o := i.Offer
	o.Key, o.OwnedInstance, o.IsIdle, o.Host = i.Backend, i.ID, true, i.Host
	o.Availability, o.IsDraining = dstack.Available, i.IsDraining
	return o
}

// AdviseRefused returns what helps with the cheapest of the machines that suit and were left out; empty: none of them suits.
func AdviseRefused(need dstack.Requirements, left []dstack.Rejection) string {
	offers := make([]dstack.Offer, len(left))
	for i := range left {
		offers[i] = left[i].Offer
	}
	found := Rank(need, offers, nil).Placements(1)
	if len(found) == 0 {
		return ""
	}
	i := slices.IndexFunc(left, func(r dstack.Rejection) bool {
		return zoneOffer(&r.Offer) == zoneOffer(&found[0].Offer) && r.Offer.Zone == found[0].Offer.Zone
	})
	if i < 0 {
		return ""
	}
	advice := found[0].Offer.Type + " suits, but " + left[i].Reason
	if help := left[i].Help; help != "" {
		advice += "; " + help
	}
	return advice
}

func zoneOffer(o *dstack.Offer) zonedOffer { return zonedOffer{o.Key, o.Region, o.Type, o.Spot} }

// MergeRefused leaves the first of the machines that were left out and differ only in their zone, for plans.
func MergeRefused(left []dstack.Rejection) []dstack.Rejection {
	seen := map[zonedOffer]bool{}
	return slices.DeleteFunc(slices.Clone(left), func(r dstack.Rejection) bool {
		key := zoneOffer(&r.Offer)
		isRepeated := r.Offer.OwnedInstance == "" && r.Offer.Zone != "" && seen[key]
		seen[key] = true
		return isRepeated
	})
}

// RefuseNew returns the offers of machines that exist or may be rented, and why the others are left out. refuse says why a
// machine with a price per hour may not be rented, and what helps; empty: it may.
func RefuseNew(offers []dstack.Offer, refuse func(price float64) (why, help string)) (allowed []dstack.Offer, rejected []dstack.Rejection) {
	for i := range offers {
		why, help := "", ""
		if offers[i].OwnedInstance == "" {
			why, help = refuse(offers[i].Price)
		}
		if why == "" {
			allowed = append(allowed, offers[i])
			continue
		}
		rejected = append(rejected, dstack.Rejection{Offer: offers[i], Constraint: dstack.ConstraintBudget, Has: why, Reason: why, Help: help})
	}
	return allowed, rejected
}
