package placement

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Drivers report less memory than a card is sold with: an L4 of 24GB has 22.5GB.
// These factors are the tolerance when that is compared with a configuration.
const (
	lowerTolerance = 1.08
	upperTolerance = 1.02
)

// gpuMatcher checks machines for the GPUs that a configuration asks for. A nil one asks
// for none, and accepts machines that have some.
type gpuMatcher struct {
	want     *spec.GPU
	maker    string
	requests []gpu.Request
	least    int // how many cards a replica needs
	most     int // how many it takes; -1: any number
	known    map[cardKind]bool
}

// cardKind is what cards of one kind have in common.
type cardKind struct {
	maker, name string
	memoryMiB   int64
	capability  [2]int
	isPart      bool // only a part of a card
}

func kindOf(g *dstack.GPU) cardKind {
	return cardKind{g.Maker, g.Name, g.MemoryMiB, g.Capability, g.Fraction > 0}
}

// isSameKind compares cards as kindOf does, without a copy.
func isSameKind(a, b *dstack.GPU) bool {
	return a.MemoryMiB == b.MemoryMiB && a.Capability == b.Capability && a.Name == b.Name && a.Maker == b.Maker &&
		a.Fraction == b.Fraction
}

func newGPUMatcher(want *spec.GPU) *gpuMatcher {
	if want == nil {
		return nil
	}
	m := &gpuMatcher{want: want, maker: want.Maker(), least: 1, most: -1, known: map[cardKind]bool{}}
	if want.Count.Min != nil {
		m.least = *want.Count.Min
	}
	if want.Count.Max != nil {
		m.most = *want.Count.Max
	}
	for _, name := range want.Name {
		m.requests = append(m.requests, gpu.ParseRequest(name))
	}
	return m
}

// refusesAny reports whether GPUs are asked for, but none.
func (m *gpuMatcher) refusesAny() bool { return m != nil && m.most == 0 }

// isSuitable reports whether a replica can use cards of a kind.
func (m *gpuMatcher) isSuitable(kind cardKind) bool {
	suits, isKnown := m.known[kind]
	if !isKnown {
		suits = m.matchKind(kind)
		m.known[kind] = suits
	}
	return suits
}

func (m *gpuMatcher) matchKind(kind cardKind) bool {
	if m.maker != "" && m.maker != kind.maker {
		return false
	}
	if !m.isNamed(kind) {
		return false
	}
	if m.want.Memory != nil && !hasMemory(*m.want.Memory, kind) {
		return false
	}
	if kind.isPart && m.want.Memory == nil && m.want.TotalMemory == nil {
		return false // who asks for a card by name or number wants a whole one
	}
	return m.hasCapability(kind)
}

// isNamed reports whether the configuration names cards of a kind, or none at all.
func (m *gpuMatcher) isNamed(kind cardKind) bool {
	return len(m.requests) == 0 || slices.ContainsFunc(m.requests, func(r gpu.Request) bool {
		return containsFold(r.Names, kind.name) && (r.SizeGB == 0 || hasMemory(exactSize(spec.GB(r.SizeGB)), kind))
	})
}

func exactSize(size spec.GB) spec.Range[spec.GB] { return spec.Range[spec.GB]{Min: &size, Max: &size} }

// hasMemory reports whether the memory of a card is in a range: the size that it is sold
// with, or, as drivers keep some, nearly the size that is reported.
func hasMemory(r spec.Range[spec.GB], kind cardKind) bool {
	return isInMemoryRange(r, kind.memoryMiB, spec.GB(gpu.SizeOf(kind.name, kind.memoryMiB)))
}

// isInMemoryRange reports whether a range contains reported memory, or the size that it
// is sold as.
func isInMemoryRange(r spec.Range[spec.GB], reportedMiB int64, sold spec.GB) bool {
	has := toGB(reportedMiB)
	isNear := (r.Min == nil || has*lowerTolerance >= *r.Min) && (r.Max == nil || has <= *r.Max*upperTolerance)
	return isNear || r.Contains(sold) || r.Contains(floorSize(has))
}

// hasCapability compares the compute capability of a card, as its driver reports it or as
// it is known of its model. A card of NVIDIA of which neither is known suits.
func (m *gpuMatcher) hasCapability(kind cardKind) bool {
	least, has := m.want.ComputeCapability, capabilityOf(kind)
	isUnknown := has == [2]int{} && (kind.maker == gpu.Nvidia || kind.maker == "")
	return least == nil || isUnknown || slices.Compare(has[:], least[:]) >= 0
}

func capabilityOf(kind cardKind) [2]int {
	if kind.capability != [2]int{} {
		return kind.capability
	}
	known, _ := gpu.Find(kind.name)
	return known.Capability
}

// gpuConstraint is that a machine has the GPUs, whoever holds them.
func gpuConstraint() constraint {
	return constraint{name: dstack.ConstraintGPU,
		applies: func(m *matcher) bool { return m.gpus != nil },
		fails: func(m *matcher, o *dstack.Offer, _ *dstack.Allocation) bool {
			return !m.gpus.accepts(o)
		},
		explain: explainGPUs,
	}
}

// accepts reports whether a machine has the GPUs, whoever holds them.
func (m *gpuMatcher) accepts(o *dstack.Offer) bool {
	isOwned := o.IsShared()
	switch {
	case m.refusesAny():
		return isOwned || len(o.Hardware.GPUs) == 0
	case o.AnyNode:
		return m.request().why == ""
	case isOwned:
		_, ok := m.choose(o.Hardware.GPUs, nil)
		return ok
	}
	return m.acceptsRented(o.Hardware.GPUs)
}

// freeGPUConstraint is that others leave the GPUs of an owned machine.
func freeGPUConstraint() constraint {
	return constraint{name: dstack.ConstraintFreeGPU, isForShared: true,
		applies: func(m *matcher) bool { return m.gpus != nil && !m.gpus.refusesAny() },
		fails: func(m *matcher, o *dstack.Offer, held *dstack.Allocation) bool {
			if !o.IsShared() || len(held.GPUs) == 0 {
				return false
			}
			_, ok := m.gpus.choose(o.Hardware.GPUs, held)
			return !ok
		},
		explain: explainFreeGPUs,
	}
}

// acceptsRented reports whether a replica can use a rented machine, all of whose GPUs it
// gets.
func (m *gpuMatcher) acceptsRented(cards []dstack.GPU) bool {
	if len(cards) < m.least || m.most >= 0 && len(cards) > m.most {
		return false
	}
	n, isSuitable := 0, false
	for i := range cards {
		if i == 0 || !isSameKind(&cards[i], &cards[i-1]) {
			isSuitable = m.isSuitable(kindOf(&cards[i]))
		}
		if isSuitable {
			n++
		}
		if n >= m.least && m.want.TotalMemory == nil { // the rest changes nothing
			return true
		}
	}
	if n < m.least {
		return false
	}
	return m.want.TotalMemory == nil || n == 0 || hasTotalMemory(*m.want.TotalMemory, m.listSuitable(cards, nil))
}

// pick returns the GPUs that a replica claims of an offer that suits it: as few as
// suffice on owned machines, all on rented ones, where no other replica could use the
// rest.
func (m *gpuMatcher) pick(o *dstack.Offer, held *dstack.Allocation) []dstack.GPU {
	if m == nil || m.refusesAny() {
		return nil
	}
	if !o.IsShared() {
		return m.listSuitable(o.Hardware.GPUs, nil)
	}
	cards, _ := m.choose(o.Hardware.GPUs, held)
	return cards
}

// listSuitable returns the cards that a replica can use and that nobody holds.
func (m *gpuMatcher) listSuitable(cards []dstack.GPU, held *dstack.Allocation) (suitable []dstack.GPU) {
	for i := range cards {
		if m.isSuitable(kindOf(&cards[i])) && !isHeld(held, cards[i].ID) {
			suitable = append(suitable, cards[i])
		}
	}
	return suitable
}

func isHeld(held *dstack.Allocation, id string) bool {
	if held == nil {
		return false
	}
	_, found := held.GPUs[id]
	return found
}

// choose returns the cards that a replica gets of an owned machine: as few as suffice, of
// one kind if that is possible, and of the kind with the least memory. ok is false if
// there are not enough.
func (m *gpuMatcher) choose(cards []dstack.GPU, held *dstack.Allocation) (chosen []dstack.GPU, ok bool) {
	free := m.listSuitable(cards, held)
	slices.SortStableFunc(free, func(a, b dstack.GPU) int {
		return cmp.Or(cmp.Compare(a.MemoryMiB, b.MemoryMiB), cmp.Compare(a.Name, b.Name))
	})
	for start := 0; start < len(free); {
		end := start + 1
		for end < len(free) && isSameKind(&free[end], &free[start]) {
			end++
		}
		if chosen, ok := m.chooseFrom(free[start:end]); ok {
			return chosen, true
		}
		start = end
	}
	return m.chooseFrom(free)
}

// chooseFrom returns the shortest sequence of neighbours that suffices.
func (m *gpuMatcher) chooseFrom(cards []dstack.GPU) (chosen []dstack.GPU, ok bool) {
	most := len(cards)
	if m.most >= 0 {
		most = min(most, m.most)
	}
	for n := m.least; n <= most; n++ {
		for at := 0; at+n <= len(cards); at++ {
			if m.want.TotalMemory == nil || n == 0 || hasTotalMemory(*m.want.TotalMemory, cards[at:at+n]) {
				return cards[at : at+n], true
			}
		}
	}
	return nil, false
}

func hasTotalMemory(r spec.Range[spec.GB], cards []dstack.GPU) bool {
	memory, sold := int64(0), spec.GB(0)
	for i := range cards {
		memory += cards[i].MemoryMiB
		sold += spec.GB(gpu.SizeOf(cards[i].Name, cards[i].MemoryMiB))
	}
	return isInMemoryRange(r, memory, sold)
}

// describeGPUs names a machine's GPUs: 2×A100 80GB.
func describeGPUs(cards []dstack.GPU) string {
	if len(cards) == 0 {
		return "no GPU"
	}
	names := make([]string, len(cards))
	for i := range cards {
		names[i] = gpu.Title(cards[i].Name, cards[i].MemoryMiB)
	}
	return human.CountEach(names, "×")
}
