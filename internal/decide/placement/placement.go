// Package placement decides which offers suit a replica, in what order, and why
// the rest do not. It also adds up what replicas hold of instances.
package placement

import (
	"math"
	"slices"

	"dstack/internal/dstack"
)

// The most that a search for a waiting replica returns: it needs only the first
// placement, and its user reads only a few rejections.
const (
	maxFoundPlacements = 15
	maxFoundRejections = 5
)

// Search is where a waiting replica can be placed.
type Search struct {
	Placements []dstack.Placement // the first ones, best first
	Rejections []dstack.Rejection // some, the nearest to suit first
	Rejected   int                // how many offers do not suit
	IsBlocked  bool               // no offer suits, and one would if the outdated replicas left
}

// FindPlacements ranks offers for a waiting replica. outdated are the unfinished
// replicas of other templates of its run.
func FindPlacements(
	need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation, outdated []dstack.Replica,
) Search {
	ranking := Rank(need, offers, used)
	found := Search{Placements: ranking.Placements(maxFoundPlacements), Rejections: ranking.Rejections(maxFoundRejections),
		Rejected: ranking.Rejected()}
	if ranking.Suitable() == 0 && len(outdated) > 0 {
		found.IsBlocked = Rank(need, offers, ReleaseAllocations(used, outdated)).Suitable() > 0
	}
	return found
}

// RankOffers splits offers into placements, best first, and rejections with their
// reasons, the nearest to suit first. used is what is allocated of owned machines. It
// is for few offers: see Rank.
func RankOffers(
	need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation,
) ([]dstack.Placement, []dstack.Rejection) {
	ranking := Rank(need, offers, used)
	return ranking.Placements(len(offers)), ranking.Rejections(len(offers))
}

// Ranking is offers in the order in which a replica should try them, and those that do
// not suit it. It makes no text and no claim until it is asked for them, so that
// hundreds of thousands of offers can be ranked.
type Ranking struct {
	matcher  *matcher
	offers   []dstack.Offer
	used     map[dstack.InstanceID]dstack.Allocation
	existing []int32     // indexes of the existing machines that suit, best first
	rented   []rentedKey // of the machines to rent that suit, as many in order as were asked for
	rejected []rejected  // in the order of the offers
}

// rejected is an offer and the first of the constraints that it fails.
type rejected struct {
	offer      int32
	constraint int32 // index in the matcher's constraints
}

// Rank decides which offers suit a replica, and orders them: owned machines, then rented
// ones that are idle, then any node of a cluster, then machines to rent. See compareOwned
// and compareRented for the order of each. Offers that are equal keep their order.
func Rank(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation) *Ranking {
	r := &Ranking{matcher: newMatcher(need), offers: offers, used: used}
	r.matcher.volumeUse = findVolumeUse(need.Pin, used)
	r.rejected, r.rented = make([]rejected, 0, len(offers)), make([]rentedKey, 0, len(offers))
	var owned []ownedKey
	for i := range offers {
		o, held := &offers[i], r.allocationOf(&offers[i])
		if failed := r.matcher.findFailure(o, held); failed >= 0 {
			r.rejected = append(r.rejected, rejected{int32(i), int32(failed)})
		} else if o.OwnedInstance != "" {
			owned = append(owned, r.matcher.newOwnedKey(int32(i), o, held))
		} else {
			r.rented = append(r.rented, rentedKey{o.Price, int32(i), !o.Spot})
		}
	}
	slices.SortFunc(owned, compareOwned)
	r.existing = make([]int32, len(owned))
	for at, key := range owned {
		r.existing[at] = key.offer
	}
	return r
}

var noAllocation dstack.Allocation

// Suitable returns how many offers suit.
func (r *Ranking) Suitable() int { return len(r.existing) + len(r.rented) }

// Rejected returns how many offers do not suit.
func (r *Ranking) Rejected() int { return len(r.rejected) }

// HighestPrice returns the price of the dearest offer that suits.
func (r *Ranking) HighestPrice() (price float64) {
	for _, i := range r.existing {
		price = max(price, r.offers[i].Price)
	}
	for _, key := range r.rented {
		price = max(price, key.price)
	}
	return price
}

// LowestPrice returns the price of the cheapest offer that suits.
func (r *Ranking) LowestPrice() float64 {
	if r.Suitable() == 0 {
		return 0
	}
	price := math.Inf(1)
	for _, i := range r.existing {
		price = min(price, r.offers[i].Price)
	}
	for _, key := range r.rented {
		price = min(price, key.price)
	}
	return price
}

// first returns the indexes of the first offers that suit, at most n, best first.
func (r *Ranking) first(n int) []int32 {
	n = min(n, r.Suitable())
	if n <= len(r.existing) {
		return r.existing[:max(n, 0)]
	}
	found := slices.Clone(r.existing)
	sortFirst(r.rented, n-len(found))
	for _, key := range r.rented[:n-len(found)] {
		found = append(found, key.offer)
	}
	return found
}

// Placements returns the first placements, at most limit.
func (r *Ranking) Placements(limit int) []dstack.Placement {
	first := r.first(limit)
	if len(first) == 0 {
		return nil
	}
	placements := make([]dstack.Placement, 0, len(first))
	for _, i := range first {
		o, held := &r.offers[i], r.allocationOf(&r.offers[i])
		placements = append(placements, dstack.Placement{Offer: *o, Claim: r.matcher.buildClaim(o, held), Free: describeFree(o, held)})
	}
	return placements
}

// Rejections returns the offers that are nearest to suit, at most limit: those that fail only a late constraint come first.
// Those that suit but for their price come before those that lack something, the cheapest first.
func (r *Ranking) Rejections(limit int) []dstack.Rejection {
	var rejections []dstack.Rejection
	add := func(found []rejected) {
		for _, one := range found[:min(len(found), limit-len(rejections))] {
			o := &r.offers[one.offer]
			rejections = append(rejections, r.matcher.explain(o, r.allocationOf(o), int(one.constraint)))
		}
	}
	tooDear := r.findTooDear()
	isTooDear := make(map[rejected]bool, len(tooDear))
	for _, one := range tooDear {
		isTooDear[one] = true
	}
	byConstraint := make([][]rejected, len(r.matcher.constraints))
	for _, one := range r.rejected {
		if found := byConstraint[one.constraint]; len(found) < limit && !isTooDear[one] {
			byConstraint[one.constraint] = append(found, one)
		}
	}
	for at := len(byConstraint) - 1; at >= 0 && len(rejections) < limit; at-- {
		if at == r.matcher.hardware-1 {
			add(tooDear)
		}
		add(byConstraint[at])
	}
	return rejections
}

// maxTooDear is how many offers Rejections lists that suit but for their price.
const maxTooDear = 20

// findTooDear returns the cheapest of the offers that suit but for their price.
func (r *Ranking) findTooDear() (found []rejected) {
	if r.matcher.need.MaxPrice == nil {
		return nil
	}
	for _, one := range r.rejected {
		o := &r.offers[one.offer]
		if r.matcher.constraints[one.constraint].name != dstack.ConstraintMaxPrice {
			continue
		}
		if len(found) == maxTooDear && o.Price >= r.offers[found[maxTooDear-1].offer].Price { // the cheapest are known: no further checks
			continue
		}
		if !r.matcher.isOnlyTooDear(o, r.allocationOf(o), int(one.constraint)) {
			continue
		}
		at, _ := slices.BinarySearchFunc(found, o.Price, func(known rejected, price float64) int {
			if r.offers[known.offer].Price <= price {
				return -1
			}
			return 1
		})
		found = slices.Insert(found, at, one)
		found = found[:min(len(found), maxTooDear)]
	}
	return found
}
