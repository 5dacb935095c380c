package fleet

import (
	"fmt"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// ListWithRoom returns the fleets of rented machines that a run names and that may get one more machine for it.
func ListWithRoom(need dstack.Requirements, fleets []dstack.Fleet) []dstack.Fleet {
	if need.OwnedOnly {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(fleets), func(f dstack.Fleet) bool { return !HasRoom(f) || !slices.Contains(need.Fleets, f.Name) })
}

// ListFull returns why the fleets of rented machines that a run names get no further machine for it.
func ListFull(need dstack.Requirements, fleets []dstack.Fleet) (full []dstack.Rejection) {
	for _, f := range fleets {
		if !f.IsRented() || f.IsDeleting || HasRoom(f) || !slices.Contains(need.Fleets, f.Name) {
			continue
		}
		least, _, most, _ := f.Configuration.NodeCounts()
		has := fmt.Sprintf("has all of its %s", human.Count(most, "machine"))
		full = append(full, dstack.Rejection{Offer: dstack.Offer{Backend: "fleet", Type: f.Name, Fleet: f.Name}, Constraint: dstack.ConstraintFleet,
			Has: has, Reason: has, Help: fmt.Sprintf("allow the fleet more: nodes: %d..%d", least, most+1)})
	}
	return full
}

// NarrowRequirements returns what a replica requires of a machine that is rented for a fleet: what it asks for, and where
// it leaves the choice, what the fleet does. It helps to ask backends for fewer offers; ChooseForFleet is strict.
func NarrowRequirements(need dstack.Requirements, f dstack.Fleet) dstack.Requirements {
	own := BuildRequirements(f)
	need.Fleets = nil
	narrowList(&need.Backends, own.Backends)
	narrowList(&need.Regions, own.Regions)
	narrowList(&need.InstanceTypes, own.InstanceTypes)
	if need.Spot == nil {
		need.Spot = own.Spot
	}
	if own.MaxPrice != nil && (need.MaxPrice == nil || *own.MaxPrice < *need.MaxPrice) {
		need.MaxPrice = own.MaxPrice
	}
	return need
}

func narrowList(list *[]string, other []string) {
	if len(*list) == 0 {
		*list = other
	}
}

// ChooseForFleet returns the machines to rent that a fleet may get, marked as its own. suits reports whether an offer meets
// BuildRequirements.
func ChooseForFleet(f dstack.Fleet, offers []dstack.Offer, suits func(dstack.Offer) bool) (chosen []dstack.Offer) {
	anchor := findAnchor(f)
	for _, o := range offers {
		if o.OwnedInstance == "" && !o.AnyNode && (anchor == nil || isSamePlace(o, *anchor)) && suits(o) {
			o.Fleet = f.Name
			chosen = append(chosen, o)
		}
	}
	return chosen
}
