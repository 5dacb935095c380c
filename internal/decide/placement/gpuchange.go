package placement

import (
	"fmt"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/spec"
)

// explainGPUs says which GPUs a machine lacks, and which request its own would satisfy.
func explainGPUs(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
	want := formatGPU(*m.gpus.want)
	if o.AnyNode {
		return explanation{wanted: want, reason: "needs gpu: " + want + "; " + m.gpus.request().why}
	}
	why := explanation{wanted: want, has: describeGPUs(o.Hardware.GPUs)}
	why.reason = fmt.Sprintf("needs gpu: %s; has %s", want, why.has)
	if m.gpus.maker == "google" && len(o.Hardware.GPUs) == 0 {
		why.reason = fmt.Sprintf("needs gpu: %s, and dstack does not support TPUs", want)
	}
	why.edit = &edit{field: "resources.gpu", relax: func(need *dstack.Requirements) { need.Resources.GPU = nil }}
	if near, ok := m.gpus.findNearestRequest(o); ok {
		why.edit.value = formatGPU(near)
		why.edit.relax = func(need *dstack.Requirements) { need.Resources.GPU = &near }
	}
	return why
}

// explainFreeGPUs says how many of a machine's GPUs others hold, and who.
func explainFreeGPUs(m *matcher, o *dstack.Offer, held *dstack.Allocation) explanation {
	suitable, free := m.gpus.listSuitable(o.Hardware.GPUs, nil), m.gpus.listSuitable(o.Hardware.GPUs, held)
	kind := "GPUs"
	if len(suitable) < len(o.Hardware.GPUs) {
		kind = "suitable GPUs"
	}
	why := explanation{wanted: formatGPU(*m.gpus.want), has: fmt.Sprintf("%d of %d %s", len(free), len(suitable), kind)}
	why.reason = why.has + " free"
	if len(free) > 0 {
		why.reason += ", needs gpu: " + why.wanted
	}
	for i := range suitable {
		if holder, isHeld := held.GPUs[suitable[i].ID]; isHeld {
			why.waitsFor = appendNew(why.waitsFor, []string{holder})
		}
	}
	return why
}

// findNearestRequest returns the request that a machine's GPUs satisfy and that differs
// the least from the present one.
func (m *gpuMatcher) findNearestRequest(o *dstack.Offer) (nearest spec.GPU, ok bool) {
	best := 0
	counts := map[cardKind]int{}
	var kinds []cardKind
	for i := range o.Hardware.GPUs {
		kind := kindOf(&o.Hardware.GPUs[i])
		if counts[kind]++; counts[kind] == 1 {
			kinds = append(kinds, kind)
		}
	}
	for _, kind := range kinds {
		request, changes := m.relaxFor(kind, counts[kind], o)
		if changes > 0 && (!ok || changes < best) {
			nearest, best, ok = request, changes, true
		}
	}
	return nearest, ok
}

// relaxFor returns the request, changed so that a machine satisfies it with its cards of
// one kind, and the number of parts that differ; 0: no change is enough.
func (m *gpuMatcher) relaxFor(kind cardKind, count int, o *dstack.Offer) (request spec.GPU, changes int) {
	request, changes = m.relaxKind(kind)
	n := m.least
	if n > count || !o.IsShared() && m.most >= 0 && len(o.Hardware.GPUs) > m.most {
		n = count
		request.Count = widenCount(request.Count, count)
		changes++
	}
	if r := request.TotalMemory; r != nil && !newGPUMatcher(&request).accepts(o) {
		if r.Min != nil { // as many as the count allows, to come near
			n = count
			if most := request.Count.Max; most != nil {
				n = min(n, *most)
			}
		}
		sold := spec.GB(gpu.SizeOf(kind.name, kind.memoryMiB))
		request.TotalMemory = new(widenRange(*r, sold*spec.GB(n)))
		changes++
	}
	if !newGPUMatcher(&request).accepts(o) {
		return request, 0
	}
	return request, changes
}

// relaxKind returns the request, changed so that cards of a kind satisfy it, and the
// number of parts that differ.
func (m *gpuMatcher) relaxKind(kind cardKind) (request spec.GPU, changes int) {
	request = *m.want
	if m.maker != "" && m.maker != kind.maker {
		request.Vendor = spec.Text(kind.maker)
		changes++
	}
	if !m.isNamed(kind) {
		request.Name = []string{kind.name}
		changes++
	}
	if request.Memory != nil && !hasMemory(*request.Memory, kind) {
		request.Memory = new(widenRange(*request.Memory, spec.GB(gpu.SizeOf(kind.name, kind.memoryMiB))))
		changes++
	}
	if !m.hasCapability(kind) {
		request.ComputeCapability = nil // of other makers
		if has := capabilityOf(kind); has != [2]int{} {
			request.ComputeCapability = &has
		}
		changes++
	}
	return request, changes
}

// widenCount returns a range with a number in it: one exact number is replaced.
func widenCount(r spec.Range[int], n int) spec.Range[int] {
	if r.Min != nil && r.Max != nil && *r.Min == *r.Max {
		return spec.Range[int]{Min: &n, Max: &n}
	}
	if r.Min != nil && n < *r.Min {
		r.Min = &n
	}
	if r.Max != nil && n > *r.Max {
		r.Max = &n
	}
	return r
}

// formatGPU formats a request as in a configuration: A100:80GB:2, or a mapping where the
// short form cannot say it.
func formatGPU(g spec.GPU) string {
	if g.TotalMemory != nil || g.ComputeCapability != nil {
		return formatGPUMapping(g)
	}
	var parts []string
	if g.Vendor != "" {
		parts = append(parts, string(g.Vendor))
	}
	if len(g.Name) > 0 {
		parts = append(parts, strings.ReplaceAll(strings.Join(g.Name, ","), " ", ""))
	}
	if g.Memory != nil {
		parts = append(parts, g.Memory.String())
	}
	if count := formatCount(g.Count); count != "1" || len(parts) == 0 {
		parts = append(parts, count)
	}
	return strings.Join(parts, ":")
}

func formatGPUMapping(g spec.GPU) string {
	var fields []string
	if g.Vendor != "" {
		fields = append(fields, "vendor: "+string(g.Vendor))
	}
	if len(g.Name) > 0 {
		fields = append(fields, "name: ["+strings.Join(g.Name, ", ")+"]")
	}
	if g.Memory != nil {
		fields = append(fields, "memory: "+g.Memory.String())
	}
	if count := formatCount(g.Count); count != "1" {
		fields = append(fields, "count: "+count)
	}
	if g.TotalMemory != nil {
		fields = append(fields, "total_memory: "+g.TotalMemory.String())
	}
	if c := g.ComputeCapability; c != nil {
		fields = append(fields, fmt.Sprintf("compute_capability: %d.%d", c[0], c[1]))
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// formatCount formats a number of GPUs. One without ends is at least one, as in matching.
func formatCount(r spec.Range[int]) string {
	if r.Min == nil && r.Max == nil {
		return "1.."
	}
	return r.String()
}
