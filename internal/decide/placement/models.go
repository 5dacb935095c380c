package placement

import (
	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/spec"
)

// ListModels returns the known models of GPUs that a configuration accepts, once for each size that
// they are sold with; nil if it accepts any GPU of its maker.
func ListModels(want *spec.GPU) (models []dstack.GPU) {
	m := newGPUMatcher(want)
	if m == nil || m.refusesAny() || !m.isRestricted() {
		return nil
	}
	maker := m.requestedMaker()
	for _, name := range gpu.Names() {
		model, _ := gpu.Find(name)
		for _, size := range model.Sizes {
			card := dstack.GPU{Maker: model.Maker, Name: model.Name, MemoryMiB: int64(size) << 10, Capability: model.Capability}
			if model.Maker == maker && m.isSuitable(kindOf(&card)) {
				models = append(models, card)
			}
		}
	}
	return models
}
