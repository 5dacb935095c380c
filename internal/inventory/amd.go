package inventory

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// minAMDMemoryMiB is the memory below which a GPU of AMD is a part of the processor, for a
// screen, and is not listed.
const minAMDMemoryMiB = 2 << 10

// amdCard is a GPU of AMD as one of the sources describes it. Empty fields are not known.
type amdCard struct {
	bus       string // address on the PCI bus, in lower case
	device    string // PCI ID of the model, such as 0x74a1
	reported  string // the product name
	memoryMiB int64
	node      string // such as renderD128
}

// readAMD returns the GPUs of AMD. The kernel lists them; amd-smi or rocm-smi may know
// better names.
func readAMD(s sections) GPUReport {
	var r GPUReport
	tool, why := readAMDTool(s, &r)
	if why != "" {
		r.Warnings = append(r.Warnings, why)
	}
	kernel := map[string]amdCard{}
	unbound := 0
	for _, d := range readPCI(s) {
		switch {
		case d.vendor != "0x1002":
		case d.driver == "amdgpu":
			kernel[d.bus] = amdCard{bus: d.bus, device: d.device, memoryMiB: d.vramMiB, node: d.node}
		default:
			unbound++
		}
	}
	if version, _ := s.first("amdgpu"); r.DriverVersion == "" {
		r.DriverVersion = strings.TrimSpace(version)
	}
	cards, warnings := joinAMD(tool, kernel)
	r.Warnings = append(r.Warnings, warnings...)
	for _, c := range cards {
		if c.memoryMiB >= minAMDMemoryMiB {
			r.GPUs = append(r.GPUs, c.gpu())
		}
	}
	if unbound > 0 && len(r.GPUs) == 0 {
		r.Warnings = append(r.Warnings, countGPUs(unbound, "AMD")+" without the kernel's driver amdgpu")
	}
	if len(r.GPUs) == 0 && len(r.Warnings) == 0 {
		r.DriverVersion = ""
	}
	return r
}

// readAMDTool returns the cards that amd-smi or rocm-smi listed.
func readAMDTool(s sections, r *GPUReport) (cards []amdCard, why string) {
	read, name := parseAMDSMI, "amd-smi"
	text, code, ok := s.lastTool("amd")
	if !ok {
		read, name = parseROCmSMI, "rocm-smi"
		if text, code, ok = s.lastTool("rocm"); !ok {
			return nil, ""
		}
	}
	cards, driver, err := read(text)
	if err != nil {
		return nil, fmt.Sprintf("%s fails: %s (exit %d)", name, lastLine(text), code)
	}
	r.DriverVersion = driver
	return cards, ""
}

// joinAMD joins what a tool and the kernel say about the same cards. Without the kernel's
// word, the cards are those of the tool. A card that the tool lists several times is
// partitioned.
func joinAMD(tool []amdCard, kernel map[string]amdCard) (cards []amdCard, warnings []string) {
	times := map[string]int{}
	for _, c := range tool {
		if c.bus != "" {
			times[c.bus]++
		}
	}
	if len(kernel) == 0 {
		cards = tool
	}
	for _, bus := range slices.Sorted(maps.Keys(kernel)) {
		c := kernel[bus]
		if i := slices.IndexFunc(tool, func(t amdCard) bool { return t.bus == bus }); i >= 0 {
			c.reported = tool[i].reported
			if c.memoryMiB == 0 {
				c.memoryMiB = tool[i].memoryMiB
			}
		}
		cards = append(cards, c)
	}
	warned := map[string]bool{}
	cards = slices.DeleteFunc(slices.Clone(cards), func(c amdCard) bool {
		if times[c.bus] < 2 {
			return false
		}
		if !warned[c.bus] {
			warnings = append(warnings, fmt.Sprintf("the GPU at %s (%s) is left out: it is partitioned, and partitions cannot be used yet; "+
				"`amd-smi set --compute-partition SPX` joins them", c.bus, c.name()))
		}
		warned[c.bus] = true
		return true
	})
	return cards, warnings
}

// amdModels are names of models by PCI ID, for those that the tools describe by the name
// of a family or an internal one.
var amdModels = map[string]string{
	"0x66a1": "MI50", "0x738c": "MI100", "0x740c": "MI250X", "0x7408": "MI250X", "0x740f": "MI210",
	"0x74a0": "MI300A", "0x74a1": "MI300X", "0x74b5": "MI300X", "0x74a2": "MI308X", "0x74a5": "MI325X", "0x74b9": "MI325X",
	"0x75a0": "MI350X", "0x75a3": "MI355X",
}

// name returns the name of the card's model as in configurations.
func (c amdCard) name() string {
	if name, ok := amdModels[c.device]; ok {
		return name
	}
	reported := c.reported
	if _, inner, ok := strings.Cut(reported, "["); ok { // Navi 22 [Radeon RX 6700/6700 XT / 6800M]
		reported, _, _ = strings.Cut(inner, "]")
	}
	reported, _, _ = strings.Cut(reported, "/")
	if reported == "" || strings.HasPrefix(reported, "0x") {
		reported = "AMD " + strings.TrimPrefix(c.device, "0x")
	}
	_, name := NameGPU(strings.TrimSpace(reported))
	return name
}

// gpu returns the card as a GPU. Its ID is its render node, the device in /dev/dri that a
// container gets; without one, the card cannot be given to a container, and its ID only
// tells it from others.
func (c amdCard) gpu() dstack.GPU {
	id := "amd-" + c.bus
	if c.node != "" {
		id = c.node
	}
	return dstack.GPU{ID: id, Maker: "amd", Name: c.name(), MemoryMiB: c.memoryMiB}
}

// parseROCmSMI reads the JSON of rocm-smi: an object with card0, card1, … and system. The
// names of its fields differ between versions in their case, and all values are strings.
// Warnings may precede it.
func parseROCmSMI(text string) (cards []amdCard, driver string, err error) {
	var objects map[string]map[string]any
	if err := json.Unmarshal(findJSON(text), &objects); err != nil {
		return nil, "", err
	}
	for _, key := range slices.SortedFunc(maps.Keys(objects), compareCards) {
		fields := map[string]string{}
		for name, value := range objects[key] {
			fields[strings.ToLower(name)] = strings.TrimSpace(fmt.Sprint(value))
		}
		if key == "system" {
			driver = fields["driver version"]
		}
		if !strings.HasPrefix(key, "card") {
			continue
		}
		bytes, _ := strconv.ParseInt(fields["vram total memory (b)"], 10, 64)
		c := amdCard{bus: strings.ToLower(fields["pci bus"]), reported: fields["card series"], memoryMiB: bytes >> 20}
		for _, name := range []string{"device id", "gpu id", "card model"} {
			if id := strings.ToLower(fields[name]); strings.HasPrefix(id, "0x") {
				c.device = id
				break
			}
		}
		if c.bus == "" {
			c.bus = key
		}
		cards = append(cards, c)
	}
	return cards, driver, nil
}

// compareCards orders card2 before card10.
func compareCards(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// amdSMICard is a card in the JSON of amd-smi static.
type amdSMICard struct {
	GPU  int `json:"gpu"`
	ASIC struct {
		Name   string `json:"market_name"`
		Device string `json:"device_id"`
	} `json:"asic"`
	Bus struct {
		Address string `json:"bdf"`
	} `json:"bus"`
	Driver struct {
		Version string `json:"version"`
		Older   string `json:"driver_version"` // before ROCm 6.2
	} `json:"driver"`
	VRAM struct {
		Size any `json:"size"` // {"value": 196592, "unit": "MB"}, and before ROCm 6.1 "196592 MB"
	} `json:"vram"`
}

// parseAMDSMI reads the JSON of amd-smi static: a list, and since ROCm 6.4 an object with
// the list gpu_data.
func parseAMDSMI(text string) (cards []amdCard, driver string, err error) {
	raw := findJSON(text)
	var list []amdSMICard
	if err := json.Unmarshal(raw, &list); err != nil {
		var object struct {
			List []amdSMICard `json:"gpu_data"`
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, "", err
		}
		list = object.List
	}
	for _, c := range list {
		bus := strings.ToLower(c.Bus.Address)
		if bus == "" {
			bus = fmt.Sprintf("card%d", c.GPU)
		}
		cards = append(cards, amdCard{
			bus: bus, device: strings.ToLower(c.ASIC.Device), reported: c.ASIC.Name, memoryMiB: parseAMDSize(c.VRAM.Size),
		})
		for _, version := range []string{c.Driver.Older, c.Driver.Version} {
			if version != "" && version != "N/A" && len(version) <= 20 { // some versions print the whole line of the kernel
				driver = version
			}
		}
	}
	return cards, driver, nil
}

// parseAMDSize returns a size in MiB; 0: it is not known.
func parseAMDSize(size any) int64 {
	var value float64
	var unit string
	switch size := size.(type) {
	case map[string]any:
		value, _ = size["value"].(float64)
		unit, _ = size["unit"].(string)
	case string:
		number, after, _ := strings.Cut(size, " ")
		value, _ = strconv.ParseFloat(number, 64)
		unit = after
	}
	switch strings.ToUpper(unit) {
	case "B":
		return int64(value) >> 20
	case "KB":
		return int64(value) >> 10
	case "GB":
		return int64(value * 1024)
	default:
		return int64(value)
	}
}

// findJSON returns the JSON value in the output of a tool, which may print warnings before
// it.
func findJSON(text string) []byte {
	if i := strings.IndexAny(text, "{["); i >= 0 {
		text = text[i:]
	}
	if i := strings.LastIndexAny(text, "}]"); i >= 0 {
		text = text[:i+1]
	}
	return []byte(text)
}
