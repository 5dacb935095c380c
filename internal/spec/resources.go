package spec

import (
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// resources reads sizes; what is not written keeps its default.
func (r *reader) resources(n *strictyaml.Node) Resources {
	res := defaultResources()
	if n.Kind == strictyaml.Sequence && len(n.Items) == 0 {
		return res // what an empty mapping is in some of the languages that write JSON
	}
	r.Fields(n, "`resources`", []strictyaml.Field{
		{Name: "cpu", Read: func(n *strictyaml.Node) {
			if v, ok := countRange(r, n); ok {
				res.CPU, res.Asked.CPU = v, asked(n, v, defaultResources().CPU)
			}
		}},
		{Name: "memory", Read: func(n *strictyaml.Node) {
			if v := sizeRangeOf(r, n); v != nil {
				res.Memory, res.Asked.Memory = *v, asked(n, *v, defaultResources().Memory)
			}
		}},
		{Name: "shm_size", Nullable: true, Read: func(n *strictyaml.Node) { res.ShmSize = r.size(n) }},
		{Name: "gpu", Nullable: true, Read: func(n *strictyaml.Node) { res.GPU = r.gpu(n) }},
		{Name: "disk", Nullable: true, Read: func(n *strictyaml.Node) { r.disk(n, &res) }},
	})
	if disk := n.Get("disk"); disk != nil && disk.IsNull() {
		res.Disk = nil
	}
	return res
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

// disk reads a size, or a mapping with one.
func (r *reader) disk(n *strictyaml.Node, res *Resources) {
	size := func(n *strictyaml.Node) {
		if v := sizeRangeOf(r, n); v != nil {
			res.Disk = &Disk{Size: *v}
			res.Asked.Disk = asked(n, *v, defaultResources().Disk.Size)
		}
	}
	if n.Kind != strictyaml.Mapping {
		size(n)
		return
	}
	r.Fields(n, "`disk`", []strictyaml.Field{{Name: "size", Required: "size: 100GB..", Read: size}})
}

// countRange reads a range of whole numbers.
func countRange(r *reader, n *strictyaml.Node) (Range[int], bool) {
	return rangeOf(r, n, count, func(n *strictyaml.Node) (int, *fault) {
		v, ok := strictyaml.IntOf(n)
		if !ok {
			return 0, &fault{Message: n.Shown() + " is not a whole number", Hint: "write 4, or a range such as 4..8"}
		}
		return v, countFault(v)
	})
}

// sizeRangeOf reads a range of sizes; nil when there is a problem.
func sizeRangeOf(r *reader, n *strictyaml.Node) *Range[GB] {
	v, ok := rangeOf(r, n, parseGB, sizeNumber)
	if !ok {
		return nil
	}
	return &v
}

// sizeNumber reads a plain number, which is in gigabytes.
func sizeNumber(n *strictyaml.Node) (GB, *fault) {
	v, ok := strictyaml.FloatOf(n)
	if !ok {
		return 0, &fault{Message: n.Shown() + " is not a size", Hint: sizeHint(n.Text)}
	}
	return GB(v), sizeFault(n.Text, GB(v))
}

// rangeOf reads `x`, `x..y` or {min, max}, whose ends are numbers or text.
func rangeOf[T int | GB](r *reader, n *strictyaml.Node, text bound[T], number func(*strictyaml.Node) (T, *fault)) (Range[T], bool) {
	v, f := Range[T]{}, (*fault)(nil)
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		var x T
		x, f = number(n)
		v = Range[T]{Min: &x, Max: &x}
	case strictyaml.String:
		v, f = parseRange(n.Text, text)
	case strictyaml.Mapping:
		return rangeFields(r, n, text, number)
	case strictyaml.Null, strictyaml.Bool, strictyaml.Sequence:
		f = &fault{Message: n.Shown() + " is not a range", Hint: "write a value such as 4, or a range such as 4..8, 4.. or ..8"}
	}
	if f != nil {
		r.Refuse(n, f)
	}
	return v, f == nil
}

func rangeFields[T int | GB](r *reader, n *strictyaml.Node, text bound[T], number func(*strictyaml.Node) (T, *fault)) (Range[T], bool) {
	var v Range[T]
	good := true
	end := func(to **T) func(*strictyaml.Node) {
		return func(n *strictyaml.Node) {
			x, f := T(0), (*fault)(nil)
			switch n.Kind {
			case strictyaml.Int, strictyaml.Float:
				x, f = number(n)
			case strictyaml.String:
				x, f = text(n.Text)
			case strictyaml.Null, strictyaml.Bool, strictyaml.Mapping, strictyaml.Sequence:
				f = &fault{Message: n.Shown() + " is not an end of a range"}
			}
			if f != nil {
				r.Refuse(n, f)
				good = false
				return
			}
			*to = &x
		}
	}
	good = r.Fields(n, "a range", []strictyaml.Field{
		{Name: "min", Nullable: true, Read: end(&v.Min)},
		{Name: "max", Nullable: true, Read: end(&v.Max)},
	}) && good
	if f := v.check(); good && f != nil {
		r.Refuse(n, f)
		good = false
	}
	return v, good
}

// size reads one size, no range.
func (r *reader) size(n *strictyaml.Node) *GB {
	v, f := GB(0), (*fault)(nil)
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		v, f = sizeNumber(n)
	case strictyaml.String:
		v, f = parseGB(n.Text)
	case strictyaml.Null, strictyaml.Bool, strictyaml.Mapping, strictyaml.Sequence:
		f = &fault{Message: n.Shown() + " is not a size", Hint: "write one size such as 16GB"}
	}
	if f != nil {
		r.Refuse(n, f)
		return nil
	}
	return &v
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

// String names the GPU as a person would: "2×A100,H100 40GB..".
func (g GPU) String() string {
	name, count := strings.Join(g.Name, ","), g.Count.String()
	memory := ""
	if g.Memory != nil {
		memory = g.Memory.String()
	}
	s := name
	switch {
	case count != "1" && name == "" && memory == "":
		s = count
	case count != "1":
		s = count + "×" + name
	case name == "" && memory == "":
		s = "1"
	}
	if memory != "" {
		if name != "" {
			s += " "
		}
		s += memory
	}
	if g.TotalMemory != nil {
		s += ", " + g.TotalMemory.String() + " in all"
	}
	if g.ComputeCapability != nil {
		s += ", compute capability " + g.capabilityText() + ".."
	}
	return s
}

func (g GPU) wire() string {
	name := strings.Join(g.Name, ",")
	if name == "" {
		name = "GPU"
	}
	s := g.Count.String() + "x" + name
	var more []string
	if g.Memory != nil {
		more = append(more, g.Memory.String())
	}
	if g.TotalMemory != nil {
		more = append(more, "total "+g.TotalMemory.String())
	}
	if c := g.ComputeCapability; c != nil {
		more = append(more, "("+strconv.Itoa(c[0])+", "+strconv.Itoa(c[1])+")")
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

func (g GPU) capabilityText() string {
	return strconv.Itoa(g.ComputeCapability[0]) + "." + strconv.Itoa(g.ComputeCapability[1])
}
