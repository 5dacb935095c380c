package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// Makers of GPUs, as the later dialect names them. A lone maker is a model's
// name on the wire of the original, which knows no makers.
var gpuMakers = []string{"nvidia", "amd", "intel", "google", "tpu", "tenstorrent"}

const gpuHint = "write model, memory and count in any order: A100, 24GB.., A100:80GB:2"

var gpuShape = anyOf("{gpu}, or on one line: `A100`, `24GB..`, `A10G,A100`, `nvidia:A100:80GB:2`, or a number",
	countEnd, pattern("", "^[^:]+(:[^:]+){0,3}$"), blockShape("gpu"))

var gpuBlock = newBlock("gpu", "`gpu`", "GPUs, written as a mapping.", []field[GPU]{
	{Key: nullable("vendor"), about: "Who makes them.", shape: oneOf(gpuMakers...),
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.Vendor = r.maker(n) }},
	{Key: nullable("name"), about: "The model, or several of which any will do.", shape: anyOf("text or list of text", textShape, textsShape), examples: []string{"A100", "[A10G, A100]"},
		read: func(r *reader, n *strictyaml.Node, g *GPU) { r.gpuNameList(n, g) }},
	{Key: plain("count"), about: "How many.", usual: "1", shape: countShape, examples: []string{"2", "1..4"},
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.Count, _ = countRange(r, n) }},
	{Key: nullable("memory"), about: "How much memory each has.", shape: sizeRangeShape, examples: []string{"24GB", "40GB..80GB"},
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.Memory = sizeRangeOf(r, n) }},
	{Key: nullable("total_memory"), about: "How much memory they have together.", shape: sizeRangeShape, examples: []string{"160GB.."},
		read: func(r *reader, n *strictyaml.Node, g *GPU) { g.TotalMemory = sizeRangeOf(r, n) }},
	{Key: nullable("compute_capability"), about: "The least compute capability.", examples: []string{"7.5", "[8, 0]"},
		shape: anyOf("`7.5` or `[7, 5]`", numeric("", nil), pattern("", `^\s*[0-9]{1,4}[.][0-9]{1,4}\s*$`), shape{"", schema{"type": "array", "minItems": 2, "maxItems": 2}}),
		read:  func(r *reader, n *strictyaml.Node, g *GPU) { g.ComputeCapability = r.capability(n) }},
})

// parseGPU reads `A100`, `24GB..`, `2`, or several of these between colons.
func parseGPU(text string) (*GPU, *fault) {
	g := anyGPU()
	seen := map[string]bool{}
	for token := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ":") {
		if token == "" {
			return nil, &fault{Message: fmt.Sprintf("there is an empty part in `%s`", text), Hint: gpuHint}
		}
		what, f := g.take(token)
		if f != nil {
			return nil, f
		}
		if seen[what] {
			return nil, &fault{Message: fmt.Sprintf("`%s` gives the %s twice", text, what), Hint: gpuHint}
		}
		seen[what] = true
	}
	return g, nil
}

// take reads one part of the short form, and tells what it is about.
func (g *GPU) take(token string) (what string, f *fault) {
	switch {
	case isMaker(token):
		g.Vendor = Text(token)
		return "maker", nil
	case isLetter(token[0]):
		g.Name, f = gpuNames(token)
		return "model", f
	case strings.ContainsFunc(token, func(r rune) bool { return r < 128 && isLetter(byte(r)) }):
		var memory Range[GB]
		memory, f = parseRange(token, parseGB)
		g.Memory = &memory
		return "memory", f
	}
	g.Count, f = parseRange(token, count)
	return "count", f
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isMaker(word string) bool { return slices.Contains(gpuMakers, strings.ToLower(word)) }

// Maker is who must have made the GPU, as machines name them: nvidia, amd,
// google; empty: anybody.
func (g GPU) Maker() string {
	if maker := strings.ToLower(string(g.Vendor)); maker != "tpu" {
		return maker
	}
	return "google"
}

func gpuNames(token string) ([]string, *fault) {
	names := strings.Split(token, ",")
	for _, name := range names {
		if name == "" {
			return nil, &fault{Message: fmt.Sprintf("there is an empty GPU name in `%s`", token), Hint: "write A10G,A100"}
		}
	}
	return names, nil
}

func anyGPU() *GPU {
	lo, hi := 1, 1
	return &GPU{Count: Range[int]{Min: &lo, Max: &hi}}
}

// gpu reads a count, the short form, or a mapping.
func (r *reader) gpu(n *strictyaml.Node) *GPU {
	switch n.Kind {
	case strictyaml.Int:
		c, ok := countRange(r, n)
		if !ok {
			return nil
		}
		return &GPU{Count: c}
	case strictyaml.String:
		text, ok := r.Text(n)
		if !ok {
			return nil
		}
		g, f := parseGPU(text)
		if f != nil {
			r.Refuse(n, f)
			return nil
		}
		return g
	case strictyaml.Mapping:
		g := anyGPU()
		gpuBlock.into(r, n, g)
		return g
	case strictyaml.Null, strictyaml.Bool, strictyaml.Float, strictyaml.Sequence:
	}
	r.At(n, n.Shown()+" is not a GPU", gpuHint)
	return nil
}

func (r *reader) maker(n *strictyaml.Node) Text {
	text, ok := r.Text(n)
	if ok && !isMaker(text) {
		r.OneOf(n, gpuMakers...)
		return ""
	}
	return Text(text)
}

// gpuNameList reads one name or a list; one name is not split at commas. A
// lone maker is no model: the wire of the original has it here.
func (r *reader) gpuNameList(n *strictyaml.Node, g *GPU) {
	items := []*strictyaml.Node{n}
	if n.Kind == strictyaml.Sequence {
		items = n.Items
	}
	names := make([]string, 0, len(items))
	for _, item := range items {
		name, ok := r.Text(item)
		if ok && name == "" {
			r.At(item, "a GPU name cannot be empty", "write A100, or [A10G, A100]")
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

var capabilityText = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})$`)

// capability reads 7.5, "7.5" or [7, 5].
func (r *reader) capability(n *strictyaml.Node) *[2]int {
	if n.Kind == strictyaml.Sequence && len(n.Items) == 2 {
		major, ok := r.Int(n.Items[0], 0, 9999)
		minor, ok2 := r.Int(n.Items[1], 0, 9999)
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
	r.At(n, "invalid compute capability: "+n.Shown(), "write both parts: 8.0")
	return nil
}
