package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

var resourcesMapping = newMapping("resources", "`resources`",
	"What a replica requires of its machine. A size such as `16GB` means exactly that size; `16GB..` means at least "+
		"that size.", []field[Resources]{
		{Key: plainKey("cpu"), description: "The number of processors, and their type.", defaultText: "2..", shape: cpuShape,
			examples: []string{"4..", "4..8", "arm:4.."},
			read:     func(r *reader, n *strictyaml.Node, res *Resources) { r.readCPU(n, res) }},
		{Key: plainKey("memory"), description: "The memory.", defaultText: "8GB..", shape: sizeRangeShape,
			examples: []string{"16GB..", "32GB..64GB"},
			read: func(r *reader, n *strictyaml.Node, res *Resources) {
				if v := readSizeRange(r, n); v != nil {
					res.Memory, res.Explicit.Memory = *v, isExplicit(n, *v, defaultResources().Memory)
				}
			}},
		{Key: nullableKey("shm_size"), description: "The size of shared memory (`/dev/shm`). The default of " +
			"containers, " +
			"64MB, is too small if several processes work on one model.", shape: sizeShape, examples: []string{"16GB"},
			read: func(r *reader, n *strictyaml.Node, res *Resources) { res.ShmSize = r.readSize(n) }},
		{Key: nullableKey("gpu"), description: "The GPUs: model, memory and count in any order, separated by colons.",
			shape: gpuShape, examples: []string{"24GB", "A100:80GB:2", "nvidia:24GB..:1..4"},
			read: func(r *reader, n *strictyaml.Node, res *Resources) { res.GPU = r.readGPU(n) }},
		{Key: nullableKey("disk"), description: "The disk size.", defaultText: "100GB..",
			shape:    anyOfShape("{disk}, or "+sizeTextShape.words, sizeTextShape, mappingShape("disk")),
			examples: []string{"200GB.."},
			read:     func(r *reader, n *strictyaml.Node, res *Resources) { r.readDisk(n, res) }},
		{Key: strictyaml.Key{Name: "count", Nullable: true, Unlisted: true},
			description: "Accepted because published files contain it. Set the number of GPUs in `gpu` instead.",
			shape:       shape{"", schema{}},
			unsupported: &unsupportedUse[Resources]{hint: countHint}, read: func(r *reader, n *strictyaml.Node,
				_ *Resources) {
				r.addUnsupportedUse(n, n.Path, countHint)
			}},
	})

const countHint = "move it into `gpu`: write gpu: {count: 2..}"

// readResources reads resources; sizes that are not set keep their defaults.
func (r *reader) readResources(n *strictyaml.Node) Resources {
	res := defaultResources()
	if n.Kind == strictyaml.Sequence && len(n.Items) == 0 {
		return res // some languages encode an empty mapping as an empty list
	}
	resourcesMapping.read(r, n, &res)
	if disk := n.Get("disk"); disk != nil && disk.IsNull() {
		res.Disk = nil
	}
	return res
}

// cpuArchs are the processor types that may stand before the count, as in arm:4, which
// later versions of dstack have.
var cpuArchs = []string{"x86", "arm"}

var cpuShape = anyOfShape("`x86:` or `arm:` and "+countShape.words, countShape,
	patternShape("", `^\s*([xX]86|[aA][rR][mM])\s*(:[\s\S]*)?$`), mappingShape("resources.cpu"))

// cpu is a requirement for processors, written as a mapping.
type cpu struct {
	arch    string
	count   Range[int]
	isGiven bool // the count
}

var cpuMapping = newMapping("resources.cpu", "`cpu`", "The processors, written as a mapping.", []field[cpu]{
	{Key: nullableKey("arch"), description: "The type of the processors.", shape: oneOfShape(cpuArchs...),
		read: func(r *reader, n *strictyaml.Node, c *cpu) { c.arch, _ = r.ReadOneOf(n, cpuArchs...) }},
	{Key: nullableKey("count"), description: "Their number.", defaultText: "2..", shape: countShape,
		examples: []string{"4.."},
		read:     func(r *reader, n *strictyaml.Node, c *cpu) { c.count, c.isGiven = readCountRange(r, n) }},
})

// readCPU reads the number of processors, and their type.
func (r *reader) readCPU(n *strictyaml.Node, res *Resources) {
	if n.Kind == strictyaml.Mapping && n.Get("min") == nil && n.Get("max") == nil && len(n.Pairs) > 0 {
		var c cpu
		cpuMapping.read(r, n, &c)
		if res.CPUArch = Text(c.arch); c.isGiven {
			res.CPU, res.Explicit.CPU = c.count, isExplicit(n.Get("count"), c.count, defaultResources().CPU)
		}
		return
	}
	arch, count, hasCount := strings.Cut(n.Text, ":")
	if arch = strings.ToLower(strings.TrimSpace(arch)); n.IsScalar() && slices.Contains(cpuArchs, arch) {
		res.CPUArch = Text(arch)
		if !hasCount {
			return
		}
		v, f := parseRange(count, parseCount)
		if f != nil {
			r.AddFault(n, f)
			return
		}
		res.CPU, res.Explicit.CPU = v, true
		return
	}
	if v, ok := readCountRange(r, n); ok {
		res.CPU, res.Explicit.CPU = v, isExplicit(n, v, defaultResources().CPU)
	}
}

// formatCPU formats the processors as in a configuration: 4.., or arm:4...
func (r Resources) formatCPU() string {
	if r.CPUArch == "" {
		return r.CPU.String()
	}
	return string(r.CPUArch) + ":" + r.CPU.String()
}

func defaultResources() Resources {
	cpu, memory, disk := DefaultCPU, DefaultMemory, DefaultDisk
	return Resources{
		CPU:    Range[int]{Min: &cpu},
		Memory: Range[GB]{Min: &memory},
		Disk:   &Disk{Size: Range[GB]{Min: &disk}},
	}
}

// isExplicit reports whether the user set v. A mapping that equals the default
// does not count, because the 0.18.10 client sends it for fields that are not
// set.
func isExplicit[T int | GB](n *strictyaml.Node, v, defaultRange Range[T]) bool {
	return n.Kind != strictyaml.Mapping || v.String() != defaultRange.String()
}

var diskMapping = newMapping("disk", "`disk`", "The disk size, written as a mapping.", []field[Resources]{
	{Key: requiredKey("size", "size: 100GB.."), description: "The size.", shape: sizeRangeShape,
		examples: []string{"200GB.."},
		read:     func(r *reader, n *strictyaml.Node, res *Resources) { r.readDiskSize(n, res) }},
})

// readDisk reads a size, or a mapping with a size.
func (r *reader) readDisk(n *strictyaml.Node, res *Resources) {
	if n.Kind == strictyaml.Mapping {
		diskMapping.read(r, n, res)
		return
	}
	r.readDiskSize(n, res)
}

func (r *reader) readDiskSize(n *strictyaml.Node, res *Resources) {
	if v := readSizeRange(r, n); v != nil {
		res.Disk = &Disk{Size: *v}
		res.Explicit.Disk = isExplicit(n, *v, defaultResources().Disk.Size)
	}
}

// String formats the requirements for the user, such as "gpu 24GB · cpu 2.. ·
// memory 8GB.. · disk 100GB..".
func (r Resources) String() string {
	s := "cpu " + r.formatCPU() + " · memory " + r.Memory.String()
	if r.GPU != nil {
		s = "gpu " + r.GPU.String() + " · " + s
	}
	if r.ShmSize != nil {
		s += " · shared memory " + r.ShmSize.String()
	}
	if r.Disk != nil {
		s += " · disk " + r.Disk.Size.String()
	}
	return s
}

// WireText formats the requirements as dstack 0.18.10 does, such as "2..xCPU,
// 8GB.., 1xGPU (24GB), 100GB.. (disk)".
func (r Resources) WireText() string {
	s := r.CPU.String() + "xCPU, " + r.Memory.String()
	if r.GPU != nil {
		s += ", " + r.GPU.formatWire()
	}
	if r.Disk != nil {
		s += ", " + r.Disk.Size.String() + " (disk)"
	}
	return s
}
