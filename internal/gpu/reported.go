package gpu

import "strings"

// ParseReported returns the maker of a GPU and its name as in configurations and
// catalogues, from the product name that its driver reports: A100 for "NVIDIA
// A100-SXM4-80GB", RTX6000Ada for "NVIDIA RTX 6000 Ada Generation". An unknown maker is
// empty. A part of a card has a name of its own: A100-MIG-1g.5gb.
func ParseReported(reported string) (maker, name string) {
	text, slice, isSlice := strings.Cut(reported, " MIG ")
	words := readWords(text)
	name = words.name
	if name == "" {
		name = strings.Join(strings.Fields(text), "")
	}
	maker = words.maker
	if m, ok := Find(name); ok {
		name = m.Name
		if maker == "" {
			maker = m.Maker
		}
	}
	if isSlice {
		name += "-MIG-" + strings.TrimSpace(slice)
	}
	return maker, name
}

// nameWords are the words of a name, by what they say.
type nameWords struct {
	maker string // of a brand among the words; empty: none
	name  string // what is left: the model
	size  int    // gigabytes; 0: not said
}

// readWords splits a name into words and reads each.
func readWords(text string) nameWords {
	var read nameWords
	var kept []string
	for word := range strings.FieldsSeq(strings.ReplaceAll(text, "/", "")) {
		if maker, isBrand := brands[strings.ToLower(word)]; isBrand && len(kept) == 0 {
			read.maker = maker
			continue
		}
		if rest := read.takeParts(word); rest != "" {
			kept = append(kept, rest)
		}
	}
	if len(kept) > 1 && isSeriesWord(kept[0], kept[1]) {
		kept = kept[1:]
	}
	read.name = strings.Join(kept, "")
	return read
}

// takeParts reads the parts of a word that dashes separate, and returns those that
// belong to the name. A dash between two of them stays: H20-3e.
func (w *nameWords) takeParts(word string) string {
	if isAddition(strings.ToLower(word)) { // such as Max-Q
		return ""
	}
	var kept []string
	for part := range strings.SplitSeq(word, "-") {
		lower := strings.ToLower(part)
		if size, ok := parseSizeWord(lower); ok {
			w.size = size
		} else if !isAddition(lower) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "-")
}

// brands are the words before the name of a model, with their maker.
var brands = map[string]string{
	"nvidia": Nvidia, "tesla": Nvidia, "geforce": Nvidia, "quadro": Nvidia, "grid": Nvidia,
	"amd": AMD, "instinct": AMD, "radeon": AMD, "intel": Intel, "habana": Intel, "tenstorrent": Tenstorrent,
}

// isSeriesWord reports whether a word names only the series of the model after it: RTX
// A6000 is the A6000, and PRO W7900 the W7900.
func isSeriesWord(word, model string) bool {
	hasNumber := len(model) > 1 && model[1] >= '0' && model[1] <= '9'
	switch strings.ToUpper(word) {
	case "RTX":
		return hasNumber && (model[0] == 'A' || model[0] == 'a')
	case "PRO":
		return hasNumber && (model[0] == 'W' || model[0] == 'w')
	}
	return false
}

// additions are words that do not tell one model from another: form factors,
// architectures, editions.
var additions = map[string]bool{
	"pcie": true, "oam": true, "fhhl": true, "dgxs": true, "ac": true, "mba": true, "(mcm)": true, "hf": true, "vf": true,
	"blackwell": true, "server": true, "workstation": true, "edition": true, "generation": true,
	"max-q": true, "with": true, "design": true, "laptop": true, "mobile": true, "gpu": true,
}

// isAddition reports whether a word in lower case does not belong to the name of a model.
func isAddition(word string) bool {
	if additions[word] {
		return true
	}
	for _, kind := range []string{"sxm", "hbm"} { // SXM5, HBM3e
		if version, ok := strings.CutPrefix(word, kind); ok && strings.Trim(version, "0123456789e") == "" {
			return true
		}
	}
	version, ok := strings.CutPrefix(word, "nvl") // NVL72 is a machine, but H100 NVL a card
	return ok && version != "" && isDigits(version)
}

// parseSizeWord returns the gigabytes that a word in lower case says: 80gb, 80g.
func parseSizeWord(word string) (gigabytes int, ok bool) {
	digits, ok := strings.CutSuffix(strings.TrimSuffix(word, "b"), "g")
	if !ok || !isDigits(digits) || len(digits) > 5 {
		return 0, false
	}
	for _, d := range digits {
		gigabytes = gigabytes*10 + int(d-'0')
	}
	return gigabytes, true
}

func isDigits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }
