package placement

import (
	"slices"

	"dstack/internal/dstack"
)

// constraintsOfPlaces are the constraints that depend on where a machine is rented, in which market, and at which price;
// all others depend on its type alone. A catalogue checks them itself.
var constraintsOfPlaces = []dstack.Constraint{dstack.ConstraintRegion, dstack.ConstraintZone, dstack.ConstraintInstanceType, dstack.ConstraintSpotPolicy,
	dstack.ConstraintMaxPrice, dstack.ConstraintVolumes, dstack.ConstraintFreeVolumes}

// TypeFilter checks types of machines to rent, so that a backend with a hundred thousand prices need not make an offer of
// each. Rank accepts the offers of a type exactly if the filter does, as far as their places, markets and prices suit.
type TypeFilter struct{ matcher *matcher }

// NewTypeFilter returns the filter of a replica's requirements.
func NewTypeFilter(need dstack.Requirements) *TypeFilter {
	m := newMatcher(need)
	m.constraints = slices.DeleteFunc(m.constraints, func(c constraint) bool { return slices.Contains(constraintsOfPlaces, c.name) })
	return &TypeFilter{m}
}

// Check returns which constraint an offer without region, zone, market and price fails first, the earliest as 0; -1: none.
// The offer of a type that is near to suit fails a late one.
func (f *TypeFilter) Check(o *dstack.Offer) int { return f.matcher.findFailure(o, &noAllocation) }
