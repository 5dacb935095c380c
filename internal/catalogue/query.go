package catalogue

import (
	"math/bits"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// Query asks a table for machines. The zero value of a field imposes no restriction.
type Query struct {
	// Offered are the regions that the account uses. Machines elsewhere are neither found nor counted.
	Offered []string
	// Flags are the flags that a row may have. Rows with others are neither found nor counted.
	Flags []string

	Regions  []string                       // names of regions or zones, in any case
	IsPlace  func(region, zone string) bool // further restricts the regions and zones; zone is empty if all zones have one price
	Types    []string                       // names of types, in any case
	Spot     *bool
	MaxPrice *float64

	// Template has the fields that are the same in all offers: Backend, Engine.
	Template dstack.Offer
	// Check says whether a type suits: negative if it does, otherwise which constraint it fails first; the later that
	// comes, the nearer is the type. It is called once for each type, with an offer without region, zone, price and
	// market, and may change the offer: set the size of the disk, or why the type is unusable.
	Check func(o *dstack.Offer) int
	// Availability says whether an offer can be had now. It is called for the cheapest offers that suit, until there are
	// enough.
	Availability func(o *dstack.Offer) dstack.Availability
	// OnePerGPU returns only the cheapest offer with the same kind and number of GPUs in each region and market, and none
	// without GPUs. All are counted.
	OnePerGPU bool
	// Limit is how many offers are returned that suit; 0: none, they are only counted.
	Limit int
}

// Found is what a query found. A type in a region and a market counts once, however many zones have rows of their own.
type Found struct {
	Offers        []dstack.Offer // suit: the cheapest first, those that cannot be had now last; at most Query.Limit
	Nearest       []dstack.Offer // do not suit: those that fail the fewest constraints first; at most maxNearest
	MoreSuitable  int            // how many more suit than Offers has
	MoreUnsuited  int            // how many more do not suit than Nearest has
	HighestPrice  float64        // of all that suit
	CheapestPrice float64        // of all, whether they suit or not
}

const (
	maxNearest         = 100
	maxNearestOfReason = 20 // of those that fail the same constraints
)

// What a row may fail, as bits of a set.
const (
	failsRegion = 1 << iota
	failsType
	failsMarket
	failsPrice
	failsCheck
)

const failureSets = 2 * failsCheck // how many sets there are

// Find returns the machines of a table that a query asks for. It looks at every row once, and makes offers only of those
// that it returns.
func (t *Table) Find(q Query) Found {
	s := &search{table: t, query: &q, types: t.checkTypes(&q), places: t.checkPlaces(&q), seen: newBitSet(t.groups), suitable: newBitSet(t.groups)}
	for i := range t.rows {
		s.look(&t.rows[i])
	}
	return s.finish()
}

// checkedType is what a query makes of a type.
type checkedType struct {
	offer   dstack.Offer
	rank    int  // of the constraint that Query.Check says it fails first; negative: none
	fails   int  // failsType, failsCheck
	ignored bool // neither found nor counted
}

func (t *Table) checkTypes(q *Query) []checkedType {
	checked := make([]checkedType, len(t.types))
	for i := range t.types {
		kind, c := &t.types[i], &checked[i]
		c.rank = -1
		c.ignored = slices.ContainsFunc(kind.flags, func(flag string) bool { return !slices.Contains(q.Flags, flag) })
		if c.ignored {
			continue
		}
		c.offer = q.Template
		c.offer.Type, c.offer.Hardware = kind.name, kind.hardware
		if q.Check != nil {
			c.rank = q.Check(&c.offer)
		}
		if c.rank >= 0 {
			c.fails |= failsCheck
		}
		if len(q.Types) > 0 && !containsFold(q.Types, kind.name) {
			c.fails |= failsType
		}
	}
	return checked
}

// checkedPlace is what a query makes of a place.
type checkedPlace struct {
	fails   int // failsRegion
	ignored bool
}

func (t *Table) checkPlaces(q *Query) []checkedPlace {
	checked := make([]checkedPlace, len(t.places))
	for i, at := range t.places {
		region := t.regions[at.region]
		checked[i].ignored = len(q.Offered) > 0 && !containsFold(q.Offered, region)
		if len(q.Regions) > 0 && !containsFold(q.Regions, region) && (at.zone == "" || !containsFold(q.Regions, at.zone)) {
			checked[i].fails = failsRegion
		}
		if q.IsPlace != nil && !checked[i].ignored && !q.IsPlace(region, at.zone) {
			checked[i].fails = failsRegion
		}
	}
	return checked
}

func containsFold(list []string, value string) bool {
	return slices.ContainsFunc(list, func(one string) bool { return strings.EqualFold(one, value) })
}

// search is the state of one Find.
type search struct {
	table     *Table
	query     *Query
	types     []checkedType
	places    []checkedPlace
	chosen    []choice // suit, and may be had now
	later     []choice // suit, but cannot be had now
	rejected  [failureSets][maxRanks][]*row
	seen      bitSet // groups that have rows
	suitable  bitSet // groups that suit
	cheapest  float64
	highest   float64
	isAnySeen bool
	gpus      []int           // for each type, the number of its kind of GPUs; with Query.OnePerGPU
	gpusTaken map[[3]int]bool // number of the GPUs, region and market → whether one of them can be had
}

// choice is a row that suits, and what was made of it.
type choice struct {
	row   *row
	offer dstack.Offer
}

// maxRanks is how many ranks of Query.Check are told apart.
const maxRanks = 64

func (s *search) look(r *row) {
	kind, at := &s.types[r.kind], &s.places[r.place]
	if kind.ignored || at.ignored {
		return
	}
	if !s.isAnySeen {
		s.cheapest, s.isAnySeen = r.price, true
	}
	s.seen.add(r.group)
	fails := kind.fails | at.fails
	if s.query.Spot != nil && *s.query.Spot != r.isSpot {
		fails |= failsMarket
	}
	if s.query.MaxPrice != nil && r.price > *s.query.MaxPrice {
		fails |= failsPrice
	}
	if fails != 0 {
		s.reject(r, fails, min(max(kind.rank, 0), maxRanks-1))
		return
	}
	s.suitable.add(r.group)
	s.highest = r.price // rows are in the order of their prices
	if len(s.chosen) < s.query.Limit {
		s.accept(r)
	}
}

// accept makes an offer of a row that suits.
func (s *search) accept(r *row) {
	key, isSuperfluous := s.findSameGPUs(r)
	if isSuperfluous {
		return
	}
	o := s.makeOffer(r)
	if s.query.Availability != nil {
		o.Availability = s.query.Availability(&o)
	}
	canBeHad := o.Availability != dstack.NotAvailable && o.Availability != dstack.NoQuota
	if s.query.OnePerGPU {
		if _, isTaken := s.gpusTaken[key]; isTaken && !canBeHad {
			return
		}
		s.gpusTaken[key] = canBeHad
	}
	if canBeHad {
		s.chosen = append(s.chosen, choice{r, o})
	} else if len(s.later) < s.query.Limit {
		s.later = append(s.later, choice{r, o})
	}
}

// findSameGPUs returns what identifies the GPUs of a row in its region and market, and whether no offer of it is wanted.
func (s *search) findSameGPUs(r *row) (key [3]int, isSuperfluous bool) {
	if !s.query.OnePerGPU {
		return key, false
	}
	if s.gpus == nil {
		s.gpus, s.gpusTaken = s.table.numberGPUs(), map[[3]int]bool{}
	}
	market := 0
	if r.isSpot {
		market = 1
	}
	key = [3]int{s.gpus[r.kind], int(s.table.places[r.place].region), market}
	return key, key[0] == 0 || s.gpusTaken[key]
}

// numberGPUs returns a number for the kind and the number of the GPUs of each type; 0: it has none.
func (t *Table) numberGPUs() []int {
	type gpus struct {
		maker, name string
		memoryMiB   int64
		count       int
	}
	numbers, known := make([]int, len(t.types)), map[gpus]int{}
	for i := range t.types {
		cards := t.types[i].hardware.GPUs
		if len(cards) == 0 {
			continue
		}
		kind := gpus{cards[0].Maker, cards[0].Name, cards[0].MemoryMiB, len(cards)}
		if known[kind] == 0 {
			known[kind] = len(known) + 1
		}
		numbers[i] = known[kind]
	}
	return numbers
}

// reject keeps a row if few fail the same constraints. Of those in a wrong region, it keeps one of each region.
func (s *search) reject(r *row, fails, rank int) {
	kept := &s.rejected[fails][rank]
	if len(*kept) >= maxNearestOfReason {
		return
	}
	if fails&failsRegion != 0 && slices.ContainsFunc(*kept, func(k *row) bool {
		return s.table.places[k.place].region == s.table.places[r.place].region
	}) {
		return
	}
	*kept = append(*kept, r)
}

func (s *search) makeOffer(r *row) dstack.Offer {
	o, at := s.types[r.kind].offer, &s.table.places[r.place]
	o.Region, o.Zone, o.Price, o.Spot = s.table.regions[at.region], at.zone, r.price, r.isSpot
	o.PriceSource = s.table.sources[at.region]
	return o
}

func (s *search) finish() Found {
	found := Found{HighestPrice: s.highest, CheapestPrice: s.cheapest}
	shown := newBitSet(s.table.groups)
	for _, c := range append(s.chosen, s.later...) {
		if len(found.Offers) < s.query.Limit {
			found.Offers = append(found.Offers, c.offer)
			shown.add(c.row.group)
		}
	}
	found.MoreSuitable = s.suitable.count() - shown.count()
	nearest := newBitSet(s.table.groups)
	for _, r := range s.listNearest() {
		found.Nearest = append(found.Nearest, s.makeOffer(r))
		nearest.add(r.group)
	}
	found.MoreUnsuited = s.seen.count() - s.suitable.count() - nearest.count()
	return found
}

// listNearest returns the rows that suit but for their price, then those that fail the fewest constraints, and of these the ones
// whose type fails the latest.
func (s *search) listNearest() (nearest []*row) {
	add := func(rows []*row) {
		for _, r := range rows {
			if len(nearest) < maxNearest && !s.suitable.has(r.group) {
				nearest = append(nearest, r)
			}
		}
	}
	add(s.rejected[failsPrice][0])
	for distance := 1; distance <= bits.Len(failureSets-1); distance++ {
		for rank := maxRanks - 1; rank >= 0; rank-- {
			for fails := range s.rejected {
				if bits.OnesCount(uint(fails)) == distance && fails != failsPrice {
					add(s.rejected[fails][rank])
				}
			}
		}
	}
	return nearest
}

// bitSet is a set of small numbers.
type bitSet []uint64

func newBitSet(size int) bitSet { return make(bitSet, (size+63)/64) }

func (b bitSet) add(i uint32) { b[i/64] |= 1 << (i % 64) }

func (b bitSet) has(i uint32) bool { return b[i/64]&(1<<(i%64)) != 0 }

func (b bitSet) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}
