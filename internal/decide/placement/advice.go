package placement

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// Advise returns what a user can do where no offer suits: one line for each way.
// It recommends to wait only if an offer suits once other replicas have left.
func Advise(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation) string {
	var lines []string
	lines = append(lines, adviseFilters(need, offers)...)
	lines = append(lines, adviseMounts(need, offers)...)
	offers = selectPinned(need, offers) // nothing helps on other machines
	if len(lines) > 0 || len(offers) == 0 {
		return strings.Join(lines, "\n")
	}
	hasContainers := slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.Engine.Containers })
	if !need.IsGlobalAdmin && !hasContainers {
		return AdviceForGlobalAdmins
	}
	if need.NeedsImage && !hasContainers {
		return "install Docker on the server's machine, or remove `image` to run plain processes"
	}
	if need.OuterDir != "" && !hasContainers {
		return "write a `working_dir` relative to the folder that you apply from, or install Docker on the server's machine"
	}
	if need.OuterPath != "" && !hasContainers {
		return fmt.Sprintf("write a path inside of the working directory for %s, such as %s, or install Docker on the server's machine",
			need.OuterPath, path.Join(dstack.CodeFolder, need.OuterPath))
	}
	if lacksGPUs(need, offers) {
		return "no machine of this server has a GPU: remove `gpu` from `resources`, or add a machine that has one: a host of a fleet, or a node of a cluster"
	}
	freed := Rank(need, offers, nil)
	for _, p := range freed.Placements(maxFoundPlacements) {
		taken := used[p.Offer.OwnedInstance]
		if port, ok := freePort(need, p.Offer, taken); ok {
			lines = append(lines, fmt.Sprintf("use another port, such as %d, or let dstack choose one: port: auto", port))
			break
		}
	}
	if len(lines) == 0 {
		lines = append(lines, adviseEdits(need, offers, used))
	}
	if freed.Suitable() > 0 {
		lines = append(lines, "or let it wait until the machine is free: --retry")
	}
	return strings.Join(lines, "\n")
}

// maxCompared is how many rejections are compared to find the one that needs the fewest
// changes.
const maxCompared = 100

// adviseEdits says which changes are enough for the machine that needs the fewest.
func adviseEdits(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation) string {
	var nearest *dstack.Rejection
	for _, r := range Rank(need, offers, used).Rejections(maxCompared) {
		if len(r.Edits) > 0 && (nearest == nil || len(r.Edits) < len(nearest.Edits)) {
			nearest = &r
		}
	}
	if nearest == nil {
		return "ask for less: see `resources` in the configuration"
	}
	return fmt.Sprintf("to use %s: %s", nearest.Offer.Type, describeHelp(nearest.Edits, nil))
}

// AdviceForGlobalAdmins says what a user can do who may not run plain processes.
const AdviceForGlobalAdmins = "install Docker on the server's machine, or ask a global admin to apply the service"

// lacksGPUs reports whether GPUs are needed and no offer has any.
func lacksGPUs(need dstack.Requirements, offers []dstack.Offer) bool {
	m := newGPUMatcher(need.Resources.GPU)
	return m != nil && !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return len(o.Hardware.GPUs) > 0 || m.accepts(&o) })
}

// maxKnown is how many values an advice names.
const maxKnown = 20

// adviseFilters names what this server has, for each filter that excludes every
// offer.
func adviseFilters(need dstack.Requirements, offers []dstack.Offer) (lines []string) {
	for _, filter := range []struct {
		what    string
		allowed []string
		value   func(o *dstack.Offer) (has, alias string)
	}{
		{"backends", need.Backends, func(o *dstack.Offer) (has, alias string) { return o.Backend, "" }},
		{"fleets", need.Fleets, func(o *dstack.Offer) (has, alias string) { return o.Fleet, "" }},
		{"regions", need.Regions, regionOf},
		{"zones", need.Zones, func(o *dstack.Offer) (has, alias string) { return o.Zone, "" }},
		{"instance types", need.InstanceTypes, typeOf},
		{"machines", nonEmpty(need.InstanceName), func(o *dstack.Offer) (has, alias string) { return o.Type, "" }},
	} {
		if len(filter.allowed) == 0 {
			continue
		}
		var known []string
		suits := false
		for _, o := range offers {
			value, alias := filter.value(&o)
			suits = suits || slices.ContainsFunc(filter.allowed, func(a string) bool {
				return strings.EqualFold(a, value) || alias != "" && strings.EqualFold(a, alias) || filter.what == "backends" && isBackend(a, value)
			})
			if value != "" && len(known) < maxKnown && !slices.Contains(known, value) {
				known = append(known, value)
			}
		}
		if !suits && len(known) > 0 {
			slices.Sort(known)
			lines = append(lines, fmt.Sprintf("this server has the %s: %s", filter.what, strings.Join(known, ", ")))
		}
	}
	return append(lines, advisePrices(need, offers)...)
}

// advisePrices names the spot policy and the highest price if they exclude all offers.
func advisePrices(need dstack.Requirements, offers []dstack.Offer) (lines []string) {
	if len(offers) == 0 {
		return nil
	}
	if price, ok := findLowestPrice(need, offers); ok {
		lines = append(lines, fmt.Sprintf("the cheapest is %s $/h; raise max_price to %s", formatPrice(price), formatPrice(price)))
	}
	if need.Spot != nil && !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.Spot == *need.Spot }) {
		policy := map[bool]string{true: "no", false: "only"}[*need.Spot]
		lines = append(lines, fmt.Sprintf("this server has %s spot machines: write `spot_policy: auto`", policy))
	}
	return lines
}

// findLowestPrice returns the price of the cheapest offer that suits but for its price. ok is false if the price is no
// obstacle, or not the only one.
func findLowestPrice(need dstack.Requirements, offers []dstack.Offer) (price float64, ok bool) {
	limit := need.MaxPrice
	if limit == nil {
		return 0, false
	}
	need.MaxPrice = nil
	found := Rank(need, offers, nil)
	if found.Suitable() == 0 {
		return 0, false
	}
	price = found.LowestPrice()
	return price, price > *limit
}

// formatPrice formats dollars for the user; the configuration accepts it. It is never less than the price.
func formatPrice(dollars float64) string {
	rounded := math.Round(dollars*1e5) / 1e5
	if rounded < dollars {
		rounded = (math.Round(dollars*1e5) + 1) / 1e5
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// nonEmpty returns a list of one value, or no list for an empty value.
func nonEmpty(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// freePort returns a port that is free on a machine whose replicas share its
// ports. ok is false if the wanted port is not the obstacle.
func freePort(need dstack.Requirements, o dstack.Offer, taken dstack.Allocation) (port int, ok bool) {
	if !o.Engine.SharesPorts || taken.Ports[need.Port] == "" {
		return 0, false
	}
	for port := need.Port + 1; port <= 65535; port++ {
		if _, held := taken.Ports[port]; !held {
			return port, true
		}
	}
	return 0, false
}
