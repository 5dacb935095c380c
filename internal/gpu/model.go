// Package gpu knows the models of GPUs: the names that users and catalogues have for
// them, what drivers call them, and their sizes of memory.
package gpu

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"dstack/internal/human"
)

// The makers of GPUs, as in configurations.
const (
	Nvidia      = "nvidia"
	AMD         = "amd"
	Intel       = "intel"
	Google      = "google"
	Tenstorrent = "tenstorrent"
)

// Model is a model of GPU that this version knows. A model that it does not know can be
// used nevertheless, by the name that its driver reports.
type Model struct {
	Name       string // as catalogues and configurations have it: RTX6000Ada
	Maker      string
	Sizes      []int  // gigabytes of memory that it is sold with
	Capability [2]int // compute capability, major and minor; zero: it has none
}

// modelsByKey are all known models by their keys.
var modelsByKey = func() map[string]*Model {
	byKey := make(map[string]*Model, len(models))
	for i := range models {
		byKey[makeKey(models[i].Name)] = &models[i]
	}
	return byKey
}()

// makeKey returns what two spellings of one name have in common.
func makeKey(name string) string { return strings.ToLower(strings.ReplaceAll(name, " ", "")) }

// Find returns the model with a name. The case of letters and spaces do not matter.
func Find(name string) (Model, bool) {
	m, ok := modelsByKey[makeKey(name)]
	if !ok {
		return Model{}, false
	}
	return *m, true
}

// FindNearest returns the name of the model that an unknown name was probably meant to
// be, or "" if none is close.
func FindNearest(name string) string {
	key := makeKey(name)
	for _, m := range models {
		if len(key) > 2 && strings.HasPrefix(makeKey(m.Name), key) {
			return m.Name
		}
	}
	return human.Nearest(key, Names())
}

// A card has less memory than it is sold with, because its driver keeps some: an L4 of
// 24GB reports 22.5GB. Some cards report a little more.
const (
	minSizeShare = 0.9
	maxSizeShare = 1.03
)

// SizeOf returns the gigabytes that a card is sold with, by its name and the memory that
// its driver reports. For an unknown card that is the reported memory, rounded.
func SizeOf(name string, reportedMiB int64) float64 {
	reported := float64(reportedMiB) / 1024
	nearest, distance := 0.0, math.Inf(1)
	if m, ok := modelsByKey[makeKey(name)]; ok {
		for _, size := range m.Sizes {
			s := float64(size)
			if d := math.Abs(reported - s); reported >= s*minSizeShare && reported <= s*maxSizeShare && d < distance {
				nearest, distance = s, d
			}
		}
	}
	if nearest > 0 {
		return nearest
	}
	if reported >= 1 {
		return math.Round(reported)
	}
	return reported
}

// Title names a card with its size for the user: A100 80GB. What is not known is left out: GPU 24GB, GPU.
func Title(name string, reportedMiB int64) string {
	title := cmp.Or(name, "GPU")
	if reportedMiB == 0 {
		return title
	}
	return fmt.Sprintf("%s %gGB", title, SizeOf(name, reportedMiB))
}

// Names returns the names of all known models.
func Names() []string {
	names := make([]string, 0, len(models))
	for _, m := range models {
		names = append(names, m.Name)
	}
	return names
}
