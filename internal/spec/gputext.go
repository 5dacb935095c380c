package spec

import (
	"strconv"
	"strings"
)

// String formats the GPU for the user, such as "2×A100,H100 40GB..".
func (g GPU) String() string {
	name, count := g.describeModel(), g.Count.String()
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
		s += ", compute capability " + g.formatCapability() + ".."
	}
	return s
}

// describeModel returns the maker and the models, as far as they are set.
func (g GPU) describeModel() string {
	name := strings.Join(g.Name, ",")
	if g.Vendor != "" && name != "" {
		return string(g.Vendor) + " " + name
	}
	return string(g.Vendor) + name
}

// formatWire formats the GPU as dstack 0.18.10 does, such as "2xA100 (40GB..)".
func (g GPU) formatWire() string {
	name := g.describeModel()
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

func (g GPU) formatCapability() string {
	return strconv.Itoa(g.ComputeCapability[0]) + "." + strconv.Itoa(g.ComputeCapability[1])
}
