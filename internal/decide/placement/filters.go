package placement

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// remoteBackends are the names of the backend of machines that are reached by SSH.
var remoteBackends = []string{"ssh", "remote"}

// isBackend reports whether a name in a configuration is that of a backend.
func isBackend(name, backend string) bool {
	return strings.EqualFold(name, backend) ||
		containsFold(remoteBackends, name) && containsFold(remoteBackends, backend)
}

func containsFold(list []string, value string) bool {
	return slices.ContainsFunc(list, func(one string) bool { return strings.EqualFold(one, value) })
}

// listFilter is a constraint whose field lists the values that an offer may have. value returns that of an offer, and
// another name for it; empty: it has none.
func listFilter(
	name dstack.Constraint, noun string, field func(need *dstack.Requirements) *[]string,
	value func(o *dstack.Offer) (has, alias string), same func(a, b string) bool,
) constraint {
	allowed := func(m *matcher) []string { return *field(&m.need) }
	return constraint{name: name,
		applies: func(m *matcher) bool { return len(allowed(m)) > 0 },
		fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
			has, alias := value(o)
			return !slices.ContainsFunc(allowed(m), func(a string) bool { return same(a, has) || alias != "" && same(a, alias) })
		},
		explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
			wanted := strings.Join(allowed(m), ", ")
			has, _ := value(o)
			if has == "" {
				return explanation{wanted: wanted, edit: &edit{field: string(name), relax: func(need *dstack.Requirements) { *field(need) = nil }},
					reason: fmt.Sprintf("it has no %s, and `%s` allows only %s", noun, name, wanted)}
			}
			return explanation{wanted: wanted, has: has,
				reason: fmt.Sprintf("its %s is %s, and `%s` allows only %s", noun, has, name, wanted),
				edit: &edit{string(name), "[" + wanted + ", " + has + "]", func(need *dstack.Requirements) {
					*field(need) = append(slices.Clone(*field(need)), has)
				}}}
		},
	}
}

// typeOf returns the names that instance_types may give a machine: its provider's type, and its name in the backend.
func typeOf(o *dstack.Offer) (has, alias string) {
	if o.InstanceType == "" {
		return o.Type, ""
	}
	return o.InstanceType, o.Type
}

// regionOf returns the names that regions may give the place of a machine: its region, and the part of it.
func regionOf(o *dstack.Offer) (has, alias string) { return o.Region, o.Zone }

// forScheduler is a constraint that the scheduler of a cluster checks.
func forScheduler(c constraint) constraint { return leaveToScheduler(c)[0] }

// filterConstraints are what the user excludes.
func filterConstraints() []constraint {
	return []constraint{
		listFilter(dstack.ConstraintBackend, "backend", func(need *dstack.Requirements) *[]string { return &need.Backends },
			func(o *dstack.Offer) (has, alias string) { return o.Backend, "" }, isBackend),
		listFilter(dstack.ConstraintFleet, "fleet", func(need *dstack.Requirements) *[]string { return &need.Fleets },
			func(o *dstack.Offer) (has, alias string) { return o.Fleet, "" }, func(a, b string) bool { return a == b }),
		forScheduler(listFilter(dstack.ConstraintRegion, "region", func(need *dstack.Requirements) *[]string { return &need.Regions },
			regionOf, strings.EqualFold)),
		forScheduler(listFilter(dstack.ConstraintZone, "zone", func(need *dstack.Requirements) *[]string { return &need.Zones },
			func(o *dstack.Offer) (has, alias string) { return o.Zone, "" }, strings.EqualFold)),
		forScheduler(listFilter(dstack.ConstraintInstanceType, "instance type", func(need *dstack.Requirements) *[]string { return &need.InstanceTypes },
			typeOf, strings.EqualFold)),
		{name: dstack.ConstraintInstanceName,
			applies: func(m *matcher) bool { return m.need.InstanceName != "" },
			fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				return o.OwnedInstance == "" || !strings.EqualFold(o.Type, m.need.InstanceName)
			},
			explain: explainInstanceName},
		{name: dstack.ConstraintCreationPolicy,
			applies: func(m *matcher) bool { return m.need.OwnedOnly },
			fails:   func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return o.OwnedInstance == "" },
			explain: func(_ *matcher, _ *dstack.Offer, _ *dstack.Allocation) explanation {
				return explanation{wanted: "reuse", has: "rented", reason: "it would be rented, and `creation_policy` is reuse",
					edit: &edit{"creation_policy", "reuse-or-create", func(need *dstack.Requirements) { need.OwnedOnly = false }}}
			}},
		{name: dstack.ConstraintSpotPolicy, isForScheduler: true,
			applies: func(m *matcher) bool { return m.need.Spot != nil },
			fails:   func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return *m.need.Spot != o.Spot },
			explain: func(m *matcher, _ *dstack.Offer, _ *dstack.Allocation) explanation {
				why := explanation{wanted: "on-demand", has: "spot", reason: "it is a spot machine"}
				if *m.need.Spot {
					why = explanation{wanted: "spot", has: "on-demand", reason: "it is not a spot machine"}
				}
				why.edit = &edit{"spot_policy", "auto", func(need *dstack.Requirements) { need.Spot = nil }}
				return why
			}},
		{name: dstack.ConstraintMaxPrice,
			applies: func(m *matcher) bool { return m.need.MaxPrice != nil },
			fails:   func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool { return o.Price > *m.need.MaxPrice },
			explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
				price, limit := formatPrice(o.Price), formatPrice(*m.need.MaxPrice)
				return explanation{wanted: "$" + limit, has: "$" + price,
					reason: fmt.Sprintf("it costs $%s an hour, $%s at most", price, limit),
					edit:   &edit{"max_price", price, func(need *dstack.Requirements) { need.MaxPrice = &o.Price }}}
			}},
	}
}

func explainInstanceName(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
	if o.AnyNode {
		return explanation{wanted: m.need.InstanceName, has: o.Type,
			edit:   &edit{field: "instance_name", relax: func(need *dstack.Requirements) { need.InstanceName = "" }},
			reason: "the cluster chooses the node, and `instance_name` allows only " + m.need.InstanceName}
	}
	if o.OwnedInstance == "" {
		return explanation{wanted: m.need.InstanceName, has: "rented", edit: &edit{field: "instance_name", relax: func(need *dstack.Requirements) { need.InstanceName = "" }},
			reason: "it would be rented, and `instance_name` allows only the existing machine " + m.need.InstanceName}
	}
	return explanation{wanted: m.need.InstanceName, has: o.Type,
		edit:   &edit{"instance_name", o.Type, func(need *dstack.Requirements) { need.InstanceName = o.Type }},
		reason: fmt.Sprintf("its name is %s, and `instance_name` allows only %s", o.Type, m.need.InstanceName)}
}
