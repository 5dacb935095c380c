package spec

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

var resourcesBlock = newBlock("resources", "`resources`", "What a replica needs of its machine. A size alone is exactly that much; `16GB..` is at least that much.", []field[Resources]{
	{Key: plain("cpu"), about: "How many processors.", usual: "2..", shape: cpuShape, examples: []string{"4..", "4..8"},
		read: func(r *reader, n *strictyaml.Node, res *Resources) { r.cpu(n, res) }},
	{Key: plain("memory"), about: "How much memory.", usual: "8GB..", shape: sizeRangeShape, examples: []string{"16GB..", "32GB..64GB"},
		read: func(r *reader, n *strictyaml.Node, res *Resources) {
			if v := sizeRangeOf(r, n); v != nil {
				res.Memory, res.Asked.Memory = *v, asked(n, *v, defaultResources().Memory)
			}
		}},
	{Key: nullable("shm_size"), about: "How much memory processes can share, at `/dev/shm`. Where several processes work on one model, 64MB (the container's default) are too few.", shape: sizeShape, examples: []string{"16GB"},
		read: func(r *reader, n *strictyaml.Node, res *Resources) { res.ShmSize = r.size(n) }},
	{Key: nullable("gpu"), about: "Which GPUs, and how many: model, memory and number between colons, in any order.", shape: gpuShape, examples: []string{"24GB", "A100:80GB:2", "nvidia:24GB..:1..4"},
		read: func(r *reader, n *strictyaml.Node, res *Resources) { res.GPU = r.gpu(n) }},
	{Key: nullable("disk"), about: "How much disk.", usual: "100GB..", shape: anyOf("{disk}, or "+sizeTextShape.words, sizeTextShape, blockShape("disk")), examples: []string{"200GB.."},
		read: func(r *reader, n *strictyaml.Node, res *Resources) { r.disk(n, res) }},
	{Key: strictyaml.Key{Name: "count", Nullable: true, Rare: true}, about: "A mistake in published files: the number of GPUs belongs into `gpu`.", shape: shape{"", schema{}},
		unmet: &unmet[Resources]{hint: countHint}, read: func(r *reader, n *strictyaml.Node, _ *Resources) { r.note(n, n.Path, countHint) }},
})

const countHint = "the number of GPUs belongs into gpu: write gpu: {count: 2..}"

// resources reads sizes; what is not written keeps its default.
func (r *reader) resources(n *strictyaml.Node) Resources {
	res := defaultResources()
	if n.Kind == strictyaml.Sequence && len(n.Items) == 0 {
		return res // what an empty mapping is in some of the languages that write JSON
	}
	resourcesBlock.into(r, n, &res)
	if disk := n.Get("disk"); disk != nil && disk.IsNull() {
		res.Disk = nil
	}
	return res
}

// The kinds of processors of the later dialect, which stand before the
// count: arm:4.
var cpuKinds = []string{"x86", "arm"}

var cpuShape = anyOf(countShape.words, countShape, pattern("", `^\s*([xX]86|[aA][rR][mM])\s*(:[\s\S]*)?$`), shape{"", schema{"type": "object", "required": []string{"arch"}}})

// cpu reads how many processors; the later dialect can say of which kind.
func (r *reader) cpu(n *strictyaml.Node, res *Resources) {
	kind, rest, _ := strings.Cut(n.Text, ":")
	if n.Kind == strictyaml.Mapping && n.Get("arch") != nil {
		kind = n.Get("arch").Text
	}
	if kind = strings.ToLower(strings.TrimSpace(kind)); slices.Contains(cpuKinds, kind) {
		if _, f := parseRange(cmp.Or(rest, "2.."), count); f != nil {
			r.Refuse(n, f)
			return
		}
		r.note(n, "the processor kind "+kind, "leave it out: cpu: "+cmp.Or(strings.TrimSpace(rest), "2.."))
		return
	}
	if v, ok := countRange(r, n); ok {
		res.CPU, res.Asked.CPU = v, asked(n, v, defaultResources().CPU)
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

// asked tells whether somebody wrote v down. A mapping equal to the default
// does not count: the original's client sends it for a field that nobody wrote.
func asked[T int | GB](n *strictyaml.Node, v, usual Range[T]) bool {
	return n.Kind != strictyaml.Mapping || v.String() != usual.String()
}

var diskBlock = newBlock("disk", "`disk`", "How much disk, written as a mapping.", []field[Resources]{
	{Key: required("size", "size: 100GB.."), about: "The size.", shape: sizeRangeShape, examples: []string{"200GB.."},
		read: func(r *reader, n *strictyaml.Node, res *Resources) { r.diskSize(n, res) }},
})

// disk reads a size, or a mapping with one.
func (r *reader) disk(n *strictyaml.Node, res *Resources) {
	if n.Kind == strictyaml.Mapping {
		diskBlock.into(r, n, res)
		return
	}
	r.diskSize(n, res)
}

func (r *reader) diskSize(n *strictyaml.Node, res *Resources) {
	if v := sizeRangeOf(r, n); v != nil {
		res.Disk = &Disk{Size: *v}
		res.Asked.Disk = asked(n, *v, defaultResources().Disk.Size)
	}
}

// String is the requirement as the plan shows it:
// "gpu 24GB · cpu 2.. · memory 8GB.. · disk 100GB..".
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

// Wire is the requirement in the original's words:
// "2..xCPU, 8GB.., 1xGPU (24GB), 100GB.. (disk)".
func (r Resources) Wire() string {
	s := r.CPU.String() + "xCPU, " + r.Memory.String()
	if r.GPU != nil {
		s += ", " + r.GPU.wire()
	}
	if r.Disk != nil {
		s += ", " + r.Disk.Size.String() + " (disk)"
	}
	return s
}
