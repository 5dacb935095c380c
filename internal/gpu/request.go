package gpu

import (
	"strconv"
	"strings"
)

// Request is what a name in a configuration asks for.
type Request struct {
	Names  []string // names of models, one of which a card must have
	Maker  string   // empty: not known
	SizeGB int      // memory that the name says, as in A100-80; 0: any
	Known  bool     // this version knows the model
}

// successors are models that a request for another model accepts, too: the same chip in
// another form.
var successors = map[string][]string{"H100": {"H100NVL"}, "H200": {"H200NVL"}}

// ParseRequest reads a name of a GPU in a configuration. It accepts the names of
// catalogues and of drivers: A100-80, H100-SXM5, RTX PRO Server 6000,
// tpu-v5litepod-8. An unknown name is looked for as it is.
func ParseRequest(name string) Request {
	name = strings.TrimSpace(name)
	if tpu, ok := parseTPU(name); ok {
		return Request{Names: []string{tpu}, Maker: Google, Known: true}
	}
	if base, slice, ok := strings.Cut(name, "-MIG-"); ok {
		m, known := Find(base)
		return Request{Names: []string{base + "-MIG-" + slice}, Maker: m.Maker, Known: known}
	}
	for _, read := range []nameWords{{name: name}, readWords(name), readNumberSize(name), readJoinedWords(name)} {
		m, ok := Find(read.name)
		if ok && (read.size == 0 || m.hasSize(read.size)) {
			return Request{Names: append([]string{m.Name}, successors[m.Name]...), Maker: m.Maker, SizeGB: read.size, Known: true}
		}
	}
	return Request{Names: []string{strings.ReplaceAll(name, " ", "")}}
}

func (m Model) hasSize(gigabytes int) bool {
	for _, size := range m.Sizes {
		if size == gigabytes {
			return true
		}
	}
	return false
}

// parseTPU returns the name of a TPU without the prefix that old catalogues have.
func parseTPU(name string) (tpu string, ok bool) {
	lower, hasPrefix := strings.CutPrefix(strings.ToLower(name), "tpu-")
	version, chips, hasChips := strings.Cut(lower, "-")
	isTPU := hasChips && isDigits(chips) && len(version) > 1 && version[0] == 'v' && version[1] >= '0' && version[1] <= '9'
	return lower, isTPU || hasPrefix && lower != ""
}

// readNumberSize reads a size without a unit: A100-80.
func readNumberSize(name string) nameWords {
	base, digits, ok := strings.Cut(name, "-")
	size, err := strconv.Atoi(digits)
	if !ok || err != nil || !isDigits(digits) {
		return nameWords{}
	}
	return nameWords{name: base, size: size}
}

// joinedWords are words that are cut out of a name without spaces, which the short form
// of a configuration does not have.
var joinedWords = []string{
	"nvidia", "geforce", "tesla", "quadro", "instinct", "radeon", "amd",
	"blackwell", "server", "workstation", "edition", "generation", "max-q", "pcie", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6ac", "sxm6", "hbm2e", "hbm2",
	"hbm3e", "hbm3",
}

// readJoinedWords reads a name whose words are joined: RTXPROServer6000, A10080GB,
// RTXA6000.
func readJoinedWords(name string) nameWords {
	rest := makeKey(name)
	for _, word := range joinedWords {
		rest = strings.ReplaceAll(rest, word, "")
	}
	rest = strings.Trim(rest, "-")
	if model, ok := strings.CutPrefix(rest, "rtx"); ok && isSeriesWord("RTX", model) {
		rest = model
	}
	if _, ok := Find(rest); ok {
		return nameWords{name: rest}
	}
	withoutUnit, ok := strings.CutSuffix(rest, "gb")
	if !ok {
		return nameWords{}
	}
	for digits := 3; digits > 1; digits-- { // the longest model last: A10 is no model of 080GB
		at := len(withoutUnit) - digits
		if at <= 0 || !isDigits(withoutUnit[at:]) || withoutUnit[at] == '0' {
			continue
		}
		base := strings.Trim(withoutUnit[:at], "-")
		size, err := strconv.Atoi(withoutUnit[at:])
		if m, known := Find(base); err == nil && known && m.hasSize(size) {
			return nameWords{name: base, size: size}
		}
	}
	return nameWords{}
}
