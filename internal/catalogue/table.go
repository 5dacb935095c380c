package catalogue

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
)

// Table is the rows of one cloud. It keeps each type and each place once, and 24 bytes for each row, so that a hundred
// thousand rows need few megabytes. A table does not change; several goroutines may search it at once.
type Table struct {
	types   []machineType
	places  []place
	regions []string // in the order of place.region
	sources []string // where the rows of each region are from, for the user: catalogue of 2026-11-28
	rows    []row    // the cheapest first
	groups  int      // how many groups there are: see row.group
}

// machineType is what is the same in all places where a type is rented out.
type machineType struct {
	name     string
	hardware dstack.Hardware // DiskMiB 0: the size is chosen when the machine is rented
	flags    []string
}

// place is a region, or a zone of one.
type place struct {
	zone   string
	region uint16 // index in Table.regions
}

// row is a price of a type in a place.
type row struct {
	price  float64
	kind   uint32 // index in Table.types
	group  uint32 // the same for the zones of a region with the same type and market
	place  uint16 // index in Table.places
	isSpot bool
}

// Sources returns where the rows are from, for the user, each once: catalogue of 2026-11-28.
func (t *Table) Sources() []string { return slices.Compact(slices.Sorted(slices.Values(t.sources))) }

// sourceOf returns where the rows of a region are from.
func (t *Table) sourceOf(region string) string {
	if i := slices.Index(t.regions, region); i >= 0 {
		return t.sources[i]
	}
	return ""
}

// Len returns the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Regions returns the regions that have rows, sorted.
func (t *Table) Regions() []string { return slices.Sorted(slices.Values(t.regions)) }

// Rows returns every row, the cheapest first.
func (t *Table) Rows(yield func(Row) bool) {
	for i := range t.rows {
		if !yield(t.rowAt(i)) {
			return
		}
	}
}

func (t *Table) rowAt(i int) Row {
	r := &t.rows[i]
	kind, at := &t.types[r.kind], &t.places[r.place]
	hw := &kind.hardware
	full := Row{Type: kind.name, Region: t.regions[at.region], Zone: at.zone, Price: r.price, Spot: r.isSpot,
		CPUs: hw.CPUs, Arch: hw.Arch, MemoryMiB: hw.MemoryMiB, DiskMiB: hw.DiskMiB, Flags: kind.flags}
	if len(hw.GPUs) > 0 {
		card := hw.GPUs[0]
		full.GPUs, full.GPUFraction = len(hw.GPUs), card.Fraction
		full.GPUMaker, full.GPUName, full.GPUMemoryMiB = card.Maker, card.Name, card.MemoryMiB
		if card.Fraction > 0 {
			full.GPUs = 0
		}
	}
	return full
}

// Hardware returns what a machine of the row has. Its GPUs have no identifiers.
func (r Row) Hardware() dstack.Hardware {
	hw := dstack.Hardware{CPUs: r.CPUs, Arch: r.Arch, MemoryMiB: r.MemoryMiB, DiskMiB: r.DiskMiB}
	n := r.GPUs
	if r.GPUFraction > 0 {
		n = 1
	}
	if n == 0 {
		return hw
	}
	card := dstack.GPU{Maker: r.GPUMaker, Name: r.GPUName, MemoryMiB: r.GPUMemoryMiB, Fraction: r.GPUFraction}
	if model, ok := gpu.Find(r.GPUName); ok {
		card.Capability = model.Capability
	}
	hw.GPUs = make([]dstack.GPU, n)
	for i := range hw.GPUs {
		hw.GPUs[i] = card
	}
	return hw
}

// The most that a row may have. Values beyond them are mistakes of a catalogue.
const (
	maxCPUs      = 1 << 16
	maxGPUs      = 1 << 10
	maxMemoryMiB = 1 << 30 // a pebibyte
	maxPrice     = 1e6
	maxNameBytes = 200
)

// check reports why a row cannot be used.
func (r *Row) check() error {
	switch {
	case r.Type == "" || r.Region == "":
		return fmt.Errorf("it has no type or no region")
	case !isPlainName(r.Type) || !isPlainName(r.Region) || r.Zone != "" && !isPlainName(r.Zone):
		return fmt.Errorf("the name of its type, region or zone is none that a cloud has")
	case !isName(r.GPUName) || !isName(r.GPUMaker):
		return fmt.Errorf("a name in it is too long, or has characters that are not shown")
	case math.IsNaN(r.Price) || r.Price <= 0 || r.Price > maxPrice: // what costs nothing would be the first choice, in any budget
		return fmt.Errorf("its price is %g", r.Price)
	case r.CPUs < 0 || r.CPUs > maxCPUs || r.MemoryMiB < 0 || r.MemoryMiB > maxMemoryMiB || r.DiskMiB < 0 || r.DiskMiB > maxMemoryMiB:
		return fmt.Errorf("it has %d CPUs, %d MiB of memory and %d MiB of disk", r.CPUs, r.MemoryMiB, r.DiskMiB)
	case r.GPUs < 0 || r.GPUs > maxGPUs || r.GPUMemoryMiB < 0 || r.GPUMemoryMiB > maxMemoryMiB:
		return fmt.Errorf("it has %d GPUs of %d MiB", r.GPUs, r.GPUMemoryMiB)
	case math.IsNaN(r.GPUFraction) || r.GPUFraction < 0 || r.GPUFraction >= 1 || r.GPUFraction > 0 && r.GPUs > 0:
		return fmt.Errorf("it has %d GPUs and %g of one", r.GPUs, r.GPUFraction)
	}
	return nil
}

func isName(name string) bool {
	return len(name) <= maxNameBytes && !strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) || c == '\ufffd' })
}

// isPlainName reports whether a name may be that of a type or a place: these become parts of URLs and names of hosts.
func isPlainName(name string) bool {
	return name != "" && len(name) <= maxNameBytes && name[0] != '.' && name[0] != '-' && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_", c)
	})
}

// Builder collects the rows of a table.
type Builder struct {
	table   Table
	source  string
	types   map[string][]uint32 // by name: indexes in table.types
	places  map[[2]string]uint16
	regions map[string]uint16
	groups  map[groupKey]uint32
	words   map[string]string
	skipped int
	problem error // of the first skipped row
}

// groupKey is what rows that differ only in zone and price have in common.
type groupKey struct {
	name   string
	region uint16
	isSpot bool
}

// NewBuilder returns a builder without rows. source is where they are from, for the user. A region whose rows are from
// several sources has the first.
func NewBuilder(source string) *Builder {
	return &Builder{source: source, types: map[string][]uint32{}, places: map[[2]string]uint16{},
		regions: map[string]uint16{}, groups: map[groupKey]uint32{}, words: map[string]string{}}
}

// NewTable returns the table of some rows, and how many of them cannot be used, with the reason for the first.
func NewTable(source string, rows []Row) (t *Table, skipped int, problem error) {
	b := NewBuilder(source)
	for _, r := range rows {
		b.Add(r)
	}
	return b.Build()
}

// Add adds a row. It skips and counts a row that cannot be used: one without a type, with a price that is no number, or
// with more than any machine has.
func (b *Builder) Add(r Row) {
	err := r.check()
	if err == nil {
		err = b.addRow(r)
	}
	if err != nil {
		b.Skip(err)
	}
}

// Skip counts a row that could not be read.
func (b *Builder) Skip(problem error) {
	b.skipped++
	if b.problem == nil {
		b.problem = problem
	}
}

// maxPlaces limits the regions and the zones of a table, whose indexes have 16 bits.
const maxPlaces = 1 << 15

func (b *Builder) addRow(r Row) error {
	if len(b.places) >= maxPlaces {
		return fmt.Errorf("the table has %d regions and zones already", maxPlaces)
	}
	region, known := b.regions[r.Region]
	if !known {
		region = uint16(len(b.table.regions))
		name := b.intern(r.Region)
		b.table.regions = append(b.table.regions, name)
		b.table.sources = append(b.table.sources, b.source)
		b.regions[name] = region
	}
	at, known := b.places[[2]string{r.Region, r.Zone}]
	if !known {
		at = uint16(len(b.table.places))
		b.table.places = append(b.table.places, place{b.intern(r.Zone), region})
		b.places[[2]string{b.table.regions[region], b.intern(r.Zone)}] = at
	}
	kind := b.findType(&r)
	key := groupKey{b.table.types[kind].name, region, r.Spot}
	group, known := b.groups[key]
	if !known {
		group = uint32(len(b.groups))
		b.groups[key] = group
	}
	b.table.rows = append(b.table.rows, row{price: r.Price, kind: kind, group: group, place: at, isSpot: r.Spot})
	return nil
}

// intern returns one string for all equal ones, which does not keep the text alive that a row was cut out of.
func (b *Builder) intern(word string) string {
	if known, ok := b.words[word]; ok {
		return known
	}
	word = strings.Clone(word)
	b.words[word] = word
	return word
}

// findType returns the index of the type of a row, and adds it if it is new. Rows with the same name may differ in what
// they have.
func (b *Builder) findType(r *Row) uint32 {
	for _, i := range b.types[r.Type] {
		if isSameType(&b.table.types[i], r) {
			return i
		}
	}
	r.Type, r.Arch, r.GPUMaker, r.GPUName = b.intern(r.Type), b.intern(r.Arch), b.intern(r.GPUMaker), b.intern(r.GPUName)
	kind := machineType{name: r.Type, hardware: r.Hardware()}
	for _, flag := range r.Flags {
		kind.flags = append(kind.flags, b.intern(flag))
	}
	i := uint32(len(b.table.types))
	b.table.types = append(b.table.types, kind)
	b.types[r.Type] = append(b.types[r.Type], i)
	return i
}

func isSameType(t *machineType, r *Row) bool {
	hw := &t.hardware
	n := r.GPUs
	if r.GPUFraction > 0 {
		n = 1
	}
	if hw.CPUs != r.CPUs || hw.Arch != r.Arch || hw.MemoryMiB != r.MemoryMiB || hw.DiskMiB != r.DiskMiB || len(hw.GPUs) != n ||
		!slices.Equal(t.flags, r.Flags) {
		return false
	}
	if n == 0 {
		return true
	}
	card := &hw.GPUs[0]
	return card.Maker == r.GPUMaker && card.Name == r.GPUName && card.MemoryMiB == r.GPUMemoryMiB && card.Fraction == r.GPUFraction
}

// Build returns the table, and how many rows were skipped, with the reason for the first. The builder cannot be used
// afterwards.
func (b *Builder) Build() (t *Table, skipped int, problem error) {
	t = &b.table
	t.groups = len(b.groups)
	slices.SortFunc(t.rows, t.compareRows)
	t.rows = slices.Clone(slices.CompactFunc(t.rows, func(a, b row) bool { // without the space for more
		return a.kind == b.kind && a.place == b.place && a.isSpot == b.isSpot && a.price == b.price
	}))
	return t, b.skipped, b.problem
}

// compareRows orders rows by price. Of equal prices, spot machines come first, then the order of the names counts, so
// that equal catalogues give equal plans.
func (t *Table) compareRows(a, b row) int {
	if a.price != b.price {
		return cmp.Compare(a.price, b.price)
	}
	if a.isSpot != b.isSpot {
		if a.isSpot {
			return -1
		}
		return 1
	}
	atA, atB := &t.places[a.place], &t.places[b.place]
	return cmp.Or(cmp.Compare(t.types[a.kind].name, t.types[b.kind].name), cmp.Compare(t.regions[atA.region], t.regions[atB.region]),
		cmp.Compare(atA.zone, atB.zone), cmp.Compare(a.kind, b.kind))
}
