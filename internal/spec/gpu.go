package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// Words that later versions read as a maker; here each would be a model that
// no machine has.
var gpuMakers = []string{"nvidia", "amd", "intel", "google", "tenstorrent", "tpu"}

const gpuHint = "write model, memory and count in any order: A100, 24GB.., A100:80GB:2"

// ParseGPU reads `A100`, `24GB..`, `2`, or several of these between colons.
func ParseGPU(text string) (*GPU, error) {
	g, f := parseGPU(text)
	if f != nil {
		return nil, problemOf("resources.gpu", f)
	}
	return g, nil
}

func parseGPU(text string) (*GPU, *fault) {
	g := anyGPU()
	var named, sized, counted bool
	for token := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ":") {
		var f *fault
		var twice *bool
		what := ""
		switch {
		case token == "":
			return nil, &fault{Message: fmt.Sprintf("there is an empty part in `%s`", text), Hint: gpuHint}
		case isLetter(token[0]):
			twice, what = &named, "model"
			g.Name, f = gpuNames(token)
		case strings.ContainsFunc(token, func(r rune) bool { return r < 128 && isLetter(byte(r)) }):
			twice, what = &sized, "memory"
			var memory Range[GB]
			memory, f = parseRange(token, parseGB)
			g.Memory = &memory
		default:
			twice, what = &counted, "count"
			g.Count, f = parseRange(token, count)
		}
		if f != nil {
			return nil, f
		}
		if *twice {
			return nil, &fault{Message: fmt.Sprintf("`%s` gives the %s twice", text, what), Hint: gpuHint}
		}
		*twice = true
	}
	return g, nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

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
		g, f := parseGPU(n.Text)
		if maker := makerIn(n.Text); maker != "" {
			r.NotYet(n, "the GPU maker "+maker, "leave it out, and write the model: A100, MI300X")
			return nil
		}
		if f != nil {
			r.Refuse(n, f)
			return nil
		}
		return g
	case strictyaml.Mapping:
		return r.gpuFields(n)
	case strictyaml.Null, strictyaml.Bool, strictyaml.Float, strictyaml.Sequence:
	}
	r.At(n, n.Shown()+" is not a GPU", gpuHint)
	return nil
}

// makerIn finds a maker's name among the models of the short form.
func makerIn(text string) string {
	for _, word := range strings.FieldsFunc(text, func(c rune) bool { return c == ':' || c == ',' || c == ' ' }) {
		if slices.Contains(gpuMakers, strings.ToLower(word)) {
			return word
		}
	}
	return ""
}

func (r *reader) gpuFields(n *strictyaml.Node) *GPU {
	g := anyGPU()
	r.Fields(n, "`gpu`", []strictyaml.Field{
		{Name: "name", Nullable: true, Read: func(n *strictyaml.Node) { g.Name = r.gpuNameList(n) }},
		{Name: "count", Read: func(n *strictyaml.Node) { g.Count, _ = countRange(r, n) }},
		{Name: "memory", Nullable: true, Read: func(n *strictyaml.Node) { g.Memory = sizeRangeOf(r, n) }},
		{Name: "total_memory", Nullable: true, Read: func(n *strictyaml.Node) { g.TotalMemory = sizeRangeOf(r, n) }},
		{Name: "compute_capability", Nullable: true, Read: func(n *strictyaml.Node) { g.ComputeCapability = r.capability(n) }},
		{Name: "vendor", Later: "leave it out, and name the models"},
	})
	return g
}

// gpuNameList reads one name or a list; one name is not split at commas.
func (r *reader) gpuNameList(n *strictyaml.Node) []string {
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
		if ok && slices.Contains(gpuMakers, strings.ToLower(name)) {
			r.NotYet(item, "the GPU maker "+name, "write the model: A100, MI300X")
		}
		names = append(names, name)
	}
	return names
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
