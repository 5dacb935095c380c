package spec

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

var resourcesMapping = newMapping("resources", "`resources`",
	"What a replica requires of its machine. A size such as `16GB` means exactly that size; `16GB..` means at least "+
		"that size.", []field[Resources]{
		{Key: plainKey("cpu"), description: "The number of processors.", defaultText: "2..", shape: cpuShape,
			examples: []string{"4..", "4..8"},
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

// cpuKinds are the processor types that later versions of dstack accept before
// the count, as in arm:4.
var cpuKinds = []string{"x86", "arm"}

var cpuShape = anyOfShape(countShape.words, countShape, patternShape("", `^\s*([xX]86|[aA][rR][mM])\s*(:[\s\S]*)?$`),
	shape{"", schema{"type": "object", "required": []string{"arch"}}})

// readCPU reads the number of processors. A processor type, as in later
// versions of dstack, is noted as unsupported.
func (r *reader) readCPU(n *strictyaml.Node, res *Resources) {
	kind, rest, _ := strings.Cut(n.Text, ":")
	if n.Kind == strictyaml.Mapping && n.Get("arch") != nil {
		kind = n.Get("arch").Text
	}
	if kind = strings.ToLower(strings.TrimSpace(kind)); slices.Contains(cpuKinds, kind) {
		if _, f := parseRange(cmp.Or(rest, "2.."), parseCount); f != nil {
			r.AddFault(n, f)
			return
		}
		r.addUnsupportedUse(n, "the processor type "+kind,
			"remove it: write cpu: "+cmp.Or(strings.TrimSpace(rest), "2.."))
		return
	}
	if v, ok := readCountRange(r, n); ok {
		res.CPU, res.Explicit.CPU = v, isExplicit(n, v, defaultResources().CPU)
	}
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
	s := "cpu " + r.CPU.String() + " · memory " + r.Memory.String()
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
