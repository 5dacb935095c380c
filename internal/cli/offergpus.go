package cli

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/human"
)

// groupFields are the values of --group-by.
var groupFields = []string{api.GroupByGPU, api.GroupByBackend, api.GroupByRegion, api.GroupByCount}

// checkGroupBy checks the values of --group-by as `dstack` of 0.22 does: gpu is always among them, and backend wherever
// region is.
func checkGroupBy(fields []string) error {
	for _, field := range fields {
		if !slices.Contains(groupFields, field) {
			return invalidInput(didYouMean(field, groupFields, "write gpu, backend, region or count"), "--group-by: `%s` is no field to group by", field)
		}
	}
	given := strings.Join(fields, ",")
	if len(fields) > 0 && !slices.Contains(fields, api.GroupByGPU) {
		return invalidInput("write --group-by gpu,"+given, "--group-by: gpu must be among the fields")
	}
	if slices.Contains(fields, api.GroupByRegion) && !slices.Contains(fields, api.GroupByBackend) {
		return invalidInput("write --group-by "+given+",backend", "--group-by: region needs backend")
	}
	return nil
}

// printGPUs prints the GPUs that suit, in groups.
func (o *offerCommand) printGPUs(g api.GroupPreview) {
	shown := g.GPUs[:min(len(g.GPUs), o.flags.maxOffers)]
	if len(shown) == 0 {
		o.printInfo(" no machine that suits has a GPU")
		o.printInfo("")
		return
	}
	gpusTable(shown).writeTo(o.out)
	if hidden := len(g.GPUs) - len(shown); hidden > 0 {
		o.printInfo("")
		o.printWrapped(" ", dim, human.Count(hidden, "more group"))
	}
	o.printInfo("")
}

// maxNamedRegions is how many regions a line names.
const maxNamedRegions = 3

func gpusTable(groups []api.GPUGroup) *table {
	t := &table{wrapsLast: true, shrinkable: []int{4, 5}, head: []string{"#", "GPU", "SPOT", "$/GPU", "BACKENDS", "REGIONS", ""}}
	for i, g := range groups {
		backends, regions := g.Backends, g.Regions
		if g.Backend != "" {
			backends = []string{g.Backend}
		}
		if g.Region != "" {
			regions = []string{g.Region}
		}
		where := strings.Join(regions, ", ")
		if len(regions) > maxNamedRegions {
			where = human.Count(len(regions), "region")
		}
		t.rows = append(t.rows, []string{fmt.Sprint(i + 1), cleanLine(formatGPUGroup(g)), strings.Join(g.Spot, ", "), formatPriceRange(g.Price),
			cleanLine(strings.Join(backends, ", ")), cleanLine(where), cleanLine(describeAvailability(g.Availability...))})
	}
	return t
}

// formatGPUGroup formats a group as `gpu` in a configuration: L4:24GB:1..8.
func formatGPUGroup(g api.GPUGroup) string {
	count := fmt.Sprint(g.Count.Min)
	if g.Count.Max > g.Count.Min {
		count = fmt.Sprintf("%d..%d", g.Count.Min, g.Count.Max)
	}
	return fmt.Sprintf("%s:%gGB:%s", g.Name, gpu.SizeOf(g.Name, g.MemoryMiB), count)
}

func formatPriceRange(r api.DollarsRange) string {
	low, high := formatPrice(r.Min), formatPrice(r.Max)
	if low == high {
		return low
	}
	return low + ".." + high
}

// describeAvailability says why offers cannot be had now; empty if one may be had.
func describeAvailability(all ...string) string {
	var why []string
	for _, one := range all {
		switch dstack.Availability(one) {
		case dstack.NotAvailable:
			why = append(why, "not available")
		case dstack.NoQuota:
			why = append(why, "no quota")
		default:
			return ""
		}
	}
	return strings.Join(why, ", ")
}

// listPriceSources says where the prices of offers are from; empty: nothing is paid.
func listPriceSources(places []api.Placement) string {
	var sources []string
	for _, p := range places {
		if source := cleanLine(p.PriceSource); source != "" && !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	if len(sources) == 0 {
		return ""
	}
	return "prices: " + strings.Join(sources, ", ")
}
