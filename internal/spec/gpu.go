package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// gpuMakers are the makers of GPUs that later versions of dstack accept. The
// 0.18.10 wire format has no maker; there, a maker without a model is written
// as the model name.
var gpuMakers = []string{"nvidia", "amd", "intel", "google", "tpu", "tenstorrent"}

const gpuHint = "write model, memory and count in any order: A100, 24GB.., A100:80GB:2"

var gpuShape = anyOfShape("{gpu}, or on one line: `A100`, `24GB..`, `A10G,A100`, `nvidia:A100:80GB:2`, or a number",
	countEnd, patternShape("", "^[^:]+(:[^:]+){0,3}$"), mappingShape("gpu"))

var gpuMapping = newMapping("gpu", "`gpu`", "GPUs, written as a mapping.", []field[GPU]{
	{Key: nullableKey("vendor"), description: "The maker of the GPUs.", shape: oneOfShape(gpuMakers...),
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.Vendor = r.readGPUMaker(n) }},
	{Key: nullableKey("name"), description: "The model, or a list of acceptable models.",
		shape: anyOfShape("text or list of text", textShape, textsShape), examples: []string{"A100", "[A10G, A100]"},
		read: func(r *reader, n *strictyaml.Node, g *GPU) { r.readGPUNames(n, g) }},
	{Key: plainKey("count"), description: "The number of GPUs.", defaultText: "1", shape: countShape,
		examples: []string{"2", "1..4"},
		read:     func(r *reader, n *strictyaml.Node, g *GPU) { g.Count, _ = readCountRange(r, n) }},
	{Key: nullableKey("memory"), description: "The memory of each GPU.", shape: sizeRangeShape,
		examples: []string{"24GB", "40GB..80GB"},
		read:     func(r *reader, n *strictyaml.Node, g *GPU) { g.Memory = readSizeRange(r, n) }},
	{Key: nullableKey("total_memory"), description: "The memory of all GPUs together.", shape: sizeRangeShape,
		examples: []string{"160GB.."},
		read:     func(r *reader, n *strictyaml.Node, g *GPU) { g.TotalMemory = readSizeRange(r, n) }},
	{Key: nullableKey("compute_capability"), description: "The minimum compute capability.",
		examples: []string{"7.5", "[8, 0]"},
		shape: anyOfShape("`7.5` or `[7, 5]`", numberShape("", nil),
			patternShape("", `^\s*[0-9]{1,4}[.][0-9]{1,4}\s*$`),
			shape{"", schema{"type": "array", "minItems": 2, "maxItems": 2}}),
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.ComputeCapability = r.readCapability(n) }},
})

// parseGPU parses the short form: up to one maker, model, memory and count in
// any order, separated by colons, such as `A100`, `24GB..`, `2` or
// `A100:80GB:2`.
func parseGPU(text string) (*GPU, *fault) {
	g := defaultGPU()
	seen := map[string]bool{}
	for token := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ":") {
		if token == "" {
			return nil, &fault{Message: fmt.Sprintf("`%s` has an empty part", text), Hint: gpuHint}
		}
		what, f := g.parsePart(token)
		if f != nil {
			return nil, f
		}
		if seen[what] {
			return nil, &fault{Message: fmt.Sprintf("`%s` sets the %s twice", text, what), Hint: gpuHint}
		}
		seen[what] = true
	}
	return g, nil
}

// parsePart reads one part of the short form and returns its kind.
func (g *GPU) parsePart(token string) (what string, f *fault) {
	switch {
	case isMaker(token):
		g.Vendor = Text(token)
		return "maker", nil
	case isLetter(token[0]):
		g.Name, f = parseGPUNames(token)
		return "model", f
	case strings.ContainsFunc(token, func(r rune) bool { return r < 128 && isLetter(byte(r)) }):
		var memory Range[GB]
		memory, f = parseRange(token, parseGB)
		g.Memory = &memory
		return "memory", f
	}
	g.Count, f = parseRange(token, parseCount)
	return "count", f
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isMaker reports whether a word is a maker of GPUs, in any case.
func isMaker(word string) bool { return slices.Contains(gpuMakers, strings.ToLower(word)) }

// Maker returns the required maker as in dstack.GPU: nvidia, amd, google. It is
// empty if any maker will do.
func (g GPU) Maker() string {
	if maker := strings.ToLower(string(g.Vendor)); maker != "tpu" {
		return maker
	}
	return "google"
}

func parseGPUNames(token string) ([]string, *fault) {
	names := strings.Split(token, ",")
	for _, name := range names {
		if name == "" {
			return nil, &fault{Message: fmt.Sprintf("`%s` has an empty GPU name", token),
				Hint: "write a list such as A10G,A100"}
		}
	}
	return names, nil
}

// defaultGPU returns a requirement of one GPU of any kind.
func defaultGPU() *GPU {
	lo, hi := 1, 1
	return &GPU{Count: Range[int]{Min: &lo, Max: &hi}}
}

// readGPU reads a count, the short form, or a mapping; nil if it is invalid.
func (r *reader) readGPU(n *strictyaml.Node) *GPU {
	switch n.Kind {
	case strictyaml.Int:
		c, ok := readCountRange(r, n)
		if !ok {
			return nil
		}
		return &GPU{Count: c}
	case strictyaml.String:
		text, ok := r.ReadText(n)
		if !ok {
			return nil
		}
		g, f := parseGPU(text)
		if f != nil {
			r.AddFault(n, f)
			return nil
		}
		return g
	case strictyaml.Mapping:
		g := defaultGPU()
		gpuMapping.read(r, n, g)
		return g
	case strictyaml.Null, strictyaml.Bool, strictyaml.Float, strictyaml.Sequence:
	}
	r.Add(n, n.Describe()+" is not a GPU", gpuHint)
	return nil
}

func (r *reader) readGPUMaker(n *strictyaml.Node) Text {
	text, ok := r.ReadText(n)
	if ok && !isMaker(text) {
		r.ReadOneOf(n, gpuMakers...)
		return ""
	}
	return Text(text)
}

// readGPUNames reads one model or a list of models. A single model is not split
// at commas. A maker without a model is read as the vendor, because the 0.18.10
// wire format has it in this place.
func (r *reader) readGPUNames(n *strictyaml.Node, g *GPU) {
	items := []*strictyaml.Node{n}
	if n.Kind == strictyaml.Sequence {
		items = n.Items
	}
	names := make([]string, 0, len(items))
	for _, item := range items {
		name, ok := r.ReadText(item)
		if ok && name == "" {
			r.Add(item, "a GPU name cannot be empty", "write A100, or [A10G, A100]")
		}
		names = append(names, name)
	}
	if len(names) == 1 && isMaker(names[0]) {
		if g.Vendor == "" {
			g.Vendor = Text(names[0])
		}
		return
	}
	g.Name = names
}

var capabilityText = newPattern(`^([0-9]{1,4})\.([0-9]{1,4})$`)

// readCapability reads a compute capability: 7.5, "7.5" or [7, 5].
func (r *reader) readCapability(n *strictyaml.Node) *[2]int {
	if n.Kind == strictyaml.Sequence && len(n.Items) == 2 {
		major, ok := r.ReadInt(n.Items[0], 0, 9999)
		minor, ok2 := r.ReadInt(n.Items[1], 0, 9999)
		if !ok || !ok2 {
			return nil
		}
		return &[2]int{major, minor}
	}
	if n.IsScalar() {
		if m := capabilityText.FindStringSubmatch(strings.TrimSpace(n.Text)); m != nil {
			major, errMajor := strconv.Atoi(m[1])
			minor, errMinor := strconv.Atoi(m[2])
			if errMajor == nil && errMinor == nil {
				return &[2]int{major, minor}
			}
		}
	}
	r.Add(n, "invalid compute capability: "+n.Describe(), "write major and minor version: 8.0")
	return nil
}
