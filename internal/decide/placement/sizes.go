package placement

import (
	"fmt"
	"math"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// dimension is a size of machines that a configuration asks for.
type dimension struct {
	constraint, free dstack.Constraint
	field, noun      string
	isExplicit       func(res *spec.Resources) bool
	wanted           func(res *spec.Resources) *spec.Range[spec.GB] // nil: any
	set              func(res *spec.Resources, r spec.Range[spec.GB])
	total            func(hw *dstack.Hardware) spec.GB
	held             func(held *dstack.Allocation) spec.GB
	format           func(size spec.GB) string
	formatRange      func(res *spec.Resources, r spec.Range[spec.GB]) string // as in a configuration
}

// dimensions are CPUs, memory and disk. CPUs are counted in the type of sizes, too.
var dimensions = []dimension{
	{
		constraint: dstack.ConstraintCPU, free: dstack.ConstraintFreeCPU, field: "resources.cpu", noun: "CPUs",
		isExplicit: func(res *spec.Resources) bool { return res.Explicit.CPU },
		wanted:     func(res *spec.Resources) *spec.Range[spec.GB] { return countToSize(res.CPU) },
		set:        func(res *spec.Resources, r spec.Range[spec.GB]) { res.CPU, res.Explicit.CPU = sizeToCount(r), true },
		total:      func(hw *dstack.Hardware) spec.GB { return spec.GB(hw.CPUs) },
		held:       func(held *dstack.Allocation) spec.GB { return spec.GB(held.CPUs) },
		format:     func(size spec.GB) string { return fmt.Sprintf("%d", int(size)) },
		formatRange: func(res *spec.Resources, r spec.Range[spec.GB]) string {
			if res.CPUArch != "" {
				return string(res.CPUArch) + ":" + sizeToCount(r).String()
			}
			return sizeToCount(r).String()
		},
	},
	{
		constraint: dstack.ConstraintMemory, free: dstack.ConstraintFreeMemory, field: "resources.memory", noun: "memory",
		isExplicit:  func(res *spec.Resources) bool { return res.Explicit.Memory },
		wanted:      func(res *spec.Resources) *spec.Range[spec.GB] { return &res.Memory },
		set:         func(res *spec.Resources, r spec.Range[spec.GB]) { res.Memory, res.Explicit.Memory = r, true },
		total:       func(hw *dstack.Hardware) spec.GB { return toGB(hw.MemoryMiB) },
		held:        func(held *dstack.Allocation) spec.GB { return toGB(held.MemoryMiB) },
		format:      formatGB,
		formatRange: func(_ *spec.Resources, r spec.Range[spec.GB]) string { return r.String() },
	},
	{
		constraint: dstack.ConstraintDisk, free: dstack.ConstraintFreeDisk, field: "resources.disk", noun: "disk",
		isExplicit: func(res *spec.Resources) bool { return res.Explicit.Disk },
		wanted: func(res *spec.Resources) *spec.Range[spec.GB] {
			if res.Disk == nil {
				return nil
			}
			return &res.Disk.Size
		},
		set: func(res *spec.Resources, r spec.Range[spec.GB]) {
			res.Disk, res.Explicit.Disk = &spec.Disk{Size: r}, true
		},
		total:       func(hw *dstack.Hardware) spec.GB { return toGB(hw.DiskMiB) },
		held:        func(held *dstack.Allocation) spec.GB { return toGB(held.DiskMiB) },
		format:      formatGB,
		formatRange: func(_ *spec.Resources, r spec.Range[spec.GB]) string { return r.String() },
	},
}

func countToSize(r spec.Range[int]) *spec.Range[spec.GB] {
	var sizes spec.Range[spec.GB]
	if r.Min != nil {
		sizes.Min = new(spec.GB(*r.Min))
	}
	if r.Max != nil {
		sizes.Max = new(spec.GB(*r.Max))
	}
	return &sizes
}

func sizeToCount(r spec.Range[spec.GB]) spec.Range[int] {
	var counts spec.Range[int]
	if r.Min != nil {
		counts.Min = new(int(*r.Min))
	}
	if r.Max != nil {
		counts.Max = new(int(*r.Max))
	}
	return counts
}

func toGB(mib int64) spec.GB { return spec.GB(float64(mib) / 1024) }

// formatGB formats a size for the user: 31.3GB.
func formatGB(size spec.GB) string { return fmt.Sprintf("%.4gGB", float64(size)) }

// sizeConstraints are the sizes of machines. On an owned machine only sizes that the
// configuration asks for count, and only their lower bounds.
func (m *matcher) sizeConstraints() []constraint {
	all := []constraint{{name: dstack.ConstraintArch,
		applies: func(m *matcher) bool { return m.need.Resources.CPUArch != "" },
		fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
			return o.Hardware.Arch != "" && o.Hardware.Arch != string(m.need.Resources.CPUArch)
		},
		explain: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
			return explanation{wanted: string(m.need.Resources.CPUArch), has: o.Hardware.Arch,
				reason: fmt.Sprintf("needs cpu: %s; has %s", m.need.Resources.CPUArch, o.Hardware.Arch),
				edit: &edit{"resources.cpu", o.Hardware.Arch + ":" + m.need.Resources.CPU.String(), func(need *dstack.Requirements) {
					need.Resources.CPUArch, need.Resources.Explicit.CPU = spec.Text(o.Hardware.Arch), true
				}}}
		},
	}}
	for _, d := range dimensions {
		want, isExplicit := d.wanted(&m.need.Resources), d.isExplicit(&m.need.Resources)
		if want == nil || *want == (spec.Range[spec.GB]{}) {
			continue
		}
		least, most := spec.GB(math.Inf(-1)), spec.GB(math.Inf(1))
		if want.Min != nil {
			least = *want.Min
		}
		if want.Max != nil {
			most = *want.Max
		}
		all = append(all, constraint{name: d.constraint,
			fails: func(_ *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
				total := d.total(&o.Hardware)
				return total < least && (isExplicit || !o.IsShared()) || total > most && !o.IsShared()
			},
			explain: d.explainTotal,
		})
	}
	return all
}

func (d dimension) explainTotal(m *matcher, o *dstack.Offer, _ *dstack.Allocation) explanation {
	res := &m.need.Resources
	want, total := d.wanted(res), d.total(&o.Hardware)
	wanted, widened := d.formatRange(res, *want), widenRange(*want, total)
	return explanation{wanted: wanted, has: d.format(total),
		reason: fmt.Sprintf("needs %s: %s; has %s", fieldName(d.field), wanted, d.format(total)),
		edit:   &edit{d.field, d.formatRange(res, widened), func(need *dstack.Requirements) { d.set(&need.Resources, widened) }}}
}

// fieldName returns the last part of a path.
func fieldName(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '.' {
			return path[i+1:]
		}
	}
	return path
}

// widenRange returns the smallest change of a range after which it contains a size: one
// exact size is replaced by another. A lower bound is rounded down, to what a user would
// write.
func widenRange(r spec.Range[spec.GB], size spec.GB) spec.Range[spec.GB] {
	isExact := r.Min != nil && r.Max != nil && *r.Min == *r.Max
	if r.Min != nil && size < *r.Min {
		r.Min = new(floorSize(size))
	}
	if r.Max != nil && size > *r.Max {
		r.Max = new(spec.GB(math.Ceil(float64(size))))
	}
	switch {
	case isExact && r.Min != nil && *r.Min == size:
		r.Max = r.Min
	case isExact && r.Max != nil && *r.Max == size:
		r.Min = r.Max
	}
	return r
}

// floorSize rounds a size down to whole gigabytes, or below one to tenths.
func floorSize(size spec.GB) spec.GB {
	if size >= 1 {
		return spec.GB(math.Floor(float64(size)))
	}
	return spec.GB(math.Floor(float64(size)*10) / 10)
}

// freeConstraints are what others must leave of an owned machine.
func (m *matcher) freeConstraints() []constraint {
	var all []constraint
	for _, d := range dimensions {
		want := d.wanted(&m.need.Resources)
		if want == nil || want.Min == nil || !d.isExplicit(&m.need.Resources) {
			continue
		}
		all = append(all, constraint{name: d.free, isForShared: true,
			fails: func(_ *matcher, o *dstack.Offer, held *dstack.Allocation) bool {
				return o.IsShared() && d.total(&o.Hardware)-d.held(held) < *want.Min
			},
			explain: d.explainFree,
		})
	}
	return append(all, freeGPUConstraint(), freePortConstraint())
}

func (d dimension) explainFree(m *matcher, o *dstack.Offer, held *dstack.Allocation) explanation {
	want, total := d.wanted(&m.need.Resources), d.total(&o.Hardware)
	free := total - d.held(held)
	why := explanation{wanted: d.format(*want.Min), has: d.format(free),
		reason: fmt.Sprintf("%s of its %s %s free, %s asked for", d.format(free), d.format(total), d.noun, d.format(*want.Min))}
	for _, share := range held.Runs {
		switch {
		case !share.HasSizes:
		case m.need.Run != "" && share.Run == m.need.Run:
			why.waitsFor = appendNew(why.waitsFor, []string{"other replicas of this run"})
		default:
			why.waitsFor = appendNew(why.waitsFor, []string{share.Holder})
		}
	}
	if len(why.waitsFor) == 0 {
		why.waitsFor = []string{describeOtherHolder(o)}
	}
	return why
}

func freePortConstraint() constraint {
	return constraint{name: dstack.ConstraintFreePort, isForShared: true,
		applies: func(m *matcher) bool { return !m.need.AnyPort },
		fails: func(m *matcher, o *dstack.Offer, held *dstack.Allocation) bool {
			return o.IsShared() && o.Engine.SharesPorts && held.Ports[m.need.Port] != ""
		},
		explain: func(m *matcher, _ *dstack.Offer, held *dstack.Allocation) explanation {
			holder := held.Ports[m.need.Port]
			return explanation{wanted: fmt.Sprint(m.need.Port), has: "taken", waitsFor: []string{holder},
				reason: fmt.Sprintf("port %d is taken by %s; plain processes share the machine's ports", m.need.Port, holder)}
		},
	}
}

// buildClaim returns what a replica would claim of an offer that suits.
func (m *matcher) buildClaim(o *dstack.Offer, held *dstack.Allocation) dstack.Claim {
	claim := dstack.Claim{Offer: o.Type, GPUs: m.gpus.pick(o, held)}
	if o.AnyNode {
		claim.GPUs = m.gpus.request().cards
	}
	if o.Engine.SharesPorts && !m.need.AnyPort {
		claim.Ports = []int{m.need.Port}
	}
	if !o.IsShared() {
		claim.Whole = true
		return claim
	}
	res := m.need.Resources
	if res.Explicit.CPU && res.CPU.Min != nil {
		claim.CPUs = *res.CPU.Min
	}
	if res.Explicit.Memory && res.Memory.Min != nil {
		claim.MemoryMiB = int64(*res.Memory.Min * 1024)
	}
	if res.Explicit.Disk && res.Disk != nil && res.Disk.Size.Min != nil {
		claim.DiskMiB = int64(*res.Disk.Size.Min * 1024)
	}
	return claim
}

// describeFree describes what is free of an owned machine.
func describeFree(o *dstack.Offer, held *dstack.Allocation) string {
	if o.IsIdle {
		return "idle"
	}
	if o.OwnedInstance == "" || len(o.Hardware.GPUs) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d GPUs free", len(o.Hardware.GPUs)-len(held.GPUs), len(o.Hardware.GPUs))
}
