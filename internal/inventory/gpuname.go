// Package inventory reads what a machine has from what commands print on it: CPUs,
// memory, disk and GPUs. It runs no command itself, so that the same code serves this
// machine and hosts behind SSH.
package inventory

import "strings"

// NameGPU returns the maker of a GPU, such as nvidia or amd, and its name as in
// configurations and catalogues, from the product name that its driver reports: A100 for
// "NVIDIA A100-SXM4-80GB", RTX4090 for "NVIDIA GeForce RTX 4090". An unknown maker is
// empty.
func NameGPU(reported string) (maker, name string) {
	words := strings.FieldsFunc(reported, func(r rune) bool { return r == ' ' || r == '-' || r == '\t' })
	for len(words) > 0 {
		of, isPrefix := prefixWords[words[0]]
		if !isPrefix {
			break
		}
		maker, words = of, words[1:]
	}
	var kept []string
	for _, word := range words {
		if !isSuffixWord(strings.ToLower(word)) {
			kept = append(kept, word)
		}
	}
	if len(kept) > 1 && kept[0] == "RTX" && kept[1][0] == 'A' {
		kept = kept[1:]
	}
	return maker, strings.ReplaceAll(strings.Join(kept, ""), "/", "")
}

// prefixWords are the words before the name of a model, with their maker.
var prefixWords = map[string]string{
	"NVIDIA": "nvidia", "Tesla": "nvidia", "GeForce": "nvidia", "Quadro": "nvidia", "TITAN": "nvidia",
	"AMD": "amd", "Instinct": "amd", "Radeon": "amd",
}

// suffixWords are the words after the name of a model that do not belong to it.
var suffixWords = map[string]bool{
	"pcie": true, "nvl": true, "generation": true, "ada": true, "laptop": true, "gpu": true,
}

// isSuffixWord reports whether a word in lower case is a form factor, a kind or size of
// memory, or another addition to the name of a model.
func isSuffixWord(word string) bool {
	if suffixWords[word] {
		return true
	}
	size, isSize := strings.CutSuffix(word, "gb")
	if !isSize {
		size, isSize = strings.CutSuffix(word, "g")
	}
	if isSize && size != "" && strings.Trim(size, "0123456789") == "" {
		return true
	}
	for _, kind := range []string{"sxm", "hbm"} {
		if version, ok := strings.CutPrefix(word, kind); ok && strings.Trim(version, "0123456789e") == "" {
			return true
		}
	}
	return false
}
