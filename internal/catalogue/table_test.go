package catalogue_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"dstack/internal/catalogue"
	"dstack/internal/dstack"
)

// g6 is a type with a GPU in one region.
func g6(region string, price float64) catalogue.Row {
	return catalogue.Row{Type: "g6.xlarge", Region: region, Price: price, CPUs: 4, Arch: "x86", MemoryMiB: 16384, GPUs: 1,
		GPUMaker: "nvidia", GPUName: "L4", GPUMemoryMiB: 23034}
}

func spot(r catalogue.Row) catalogue.Row { r.Spot = true; r.Price /= 2; return r }

func inZone(r catalogue.Row, zone string) catalogue.Row { r.Zone = zone; return r }

// plain is a type without a GPU.
func plain(name, region string, cpus int, price float64) catalogue.Row {
	return catalogue.Row{Type: name, Region: region, Price: price, CPUs: cpus, Arch: "x86", MemoryMiB: int64(cpus) << 12}
}

func newTable(t *testing.T, rows ...catalogue.Row) *catalogue.Table {
	t.Helper()
	table, skipped, problem := catalogue.NewTable("test", rows)
	if skipped > 0 {
		t.Fatalf("skipped %d rows: %v", skipped, problem)
	}
	return table
}

func TestTable_KeepsWhatRowsSay(t *testing.T) {
	rows := []catalogue.Row{
		plain("t3.medium", "us-east-1", 2, 0.0416),
		{Type: "g6f.large", Region: "us-east-1", Price: 0.202, CPUs: 2, Arch: "x86", MemoryMiB: 8192, GPUFraction: 0.125, GPUMaker: "nvidia",
			GPUName: "L4", GPUMemoryMiB: 2861, Flags: []string{"part"}},
		g6("us-east-1", 0.8048),
		{Type: "trn1.2xlarge", Region: "eu-west-1", Zone: "eu-west-1a", Price: 1.34, Spot: true, CPUs: 8, Arch: "x86", MemoryMiB: 32768, DiskMiB: 1 << 20,
			GPUs: 1, GPUMaker: "aws", GPUName: "Trainium", GPUMemoryMiB: 32768},
	}
	table := newTable(t, slices.Concat(rows[2:], rows[:2])...)
	got := slices.Collect(table.Rows)
	if fmt.Sprint(got) != fmt.Sprint(rows) {
		t.Errorf("got  %+v\nwant %+v", got, rows)
	}
	if regions := table.Regions(); !slices.Equal(regions, []string{"eu-west-1", "us-east-1"}) {
		t.Errorf("regions %v", regions)
	}
}

// Rows that cannot be right are left out, and counted.
func TestTable_SkipsBrokenRows(t *testing.T) {
	good := g6("us-east-1", 0.8)
	for name, damage := range map[string]func(r *catalogue.Row){
		"no type":          func(r *catalogue.Row) { r.Type = "" },
		"no region":        func(r *catalogue.Row) { r.Region = "" },
		"price NaN":        func(r *catalogue.Row) { r.Price = math.NaN() },
		"price infinite":   func(r *catalogue.Row) { r.Price = math.Inf(1) },
		"price negative":   func(r *catalogue.Row) { r.Price = -0.1 },
		"many CPUs":        func(r *catalogue.Row) { r.CPUs = 1 << 30 },
		"negative memory":  func(r *catalogue.Row) { r.MemoryMiB = -1 },
		"many GPUs":        func(r *catalogue.Row) { r.GPUs = 1 << 30 },
		"a GPU and a part": func(r *catalogue.Row) { r.GPUFraction = 0.5 },
		"control":          func(r *catalogue.Row) { r.Type = "g6\x1b[2J" },
		"not UTF-8":        func(r *catalogue.Row) { r.Region = "us\xff" },
	} {
		bad := good
		damage(&bad)
		table, skipped, problem := catalogue.NewTable("test", []catalogue.Row{good, bad})
		if table.Len() != 1 || skipped != 1 || problem == nil {
			t.Errorf("%s: %d rows, %d skipped, problem %v", name, table.Len(), skipped, problem)
		}
	}
}

func namesOf(offers []dstack.Offer) (names []string) {
	for _, o := range offers {
		market := ""
		if o.Spot {
			market = " spot"
		}
		names = append(names, fmt.Sprintf("%s %s%s%s $%g", o.Type, o.Region, o.Zone, market, o.Price))
	}
	return names
}

// needsGPU is a check that only types with a GPU pass.
func needsGPU(o *dstack.Offer) int {
	if len(o.Hardware.GPUs) == 0 {
		return 3
	}
	return -1
}

func TestFind(t *testing.T) {
	table := newTable(t, g6("us-east-1", 0.8), g6("eu-west-1", 0.9), spot(g6("us-east-1", 0.8)), spot(inZone(g6("eu-west-1", 0.84), "b")),
		inZone(spot(g6("eu-west-1", 0.86)), "a"), plain("t3.medium", "us-east-1", 2, 0.04), plain("m5.large", "eu-west-1", 2, 0.1))
	onDemand, low, none := false, 0.42, 0.01
	for name, c := range map[string]struct {
		query             catalogue.Query
		offers            []string
		suitable, rejects int
		highest           float64
		nearest           string // the first of them
	}{
		"everything": {catalogue.Query{Limit: 9}, []string{"t3.medium us-east-1 $0.04", "m5.large eu-west-1 $0.1", "g6.xlarge us-east-1 spot $0.4",
			"g6.xlarge eu-west-1b spot $0.42", "g6.xlarge eu-west-1a spot $0.43", "g6.xlarge us-east-1 $0.8", "g6.xlarge eu-west-1 $0.9"}, 6, 0, 0.9, ""},
		"the cheapest": {catalogue.Query{Limit: 1}, []string{"t3.medium us-east-1 $0.04"}, 6, 0, 0.9, ""},
		"types that pass the check": {catalogue.Query{Check: needsGPU, Spot: &onDemand, Limit: 9}, []string{"g6.xlarge us-east-1 $0.8", "g6.xlarge eu-west-1 $0.9"},
			2, 4, 0.9, "t3.medium us-east-1 $0.04"},
		"a region, in any case": {catalogue.Query{Regions: []string{"EU-West-1"}, Check: needsGPU, Limit: 1}, []string{"g6.xlarge eu-west-1b spot $0.42"},
			2, 4, 0.9, "m5.large eu-west-1 $0.1"},
		"a zone":          {catalogue.Query{Regions: []string{"a"}, Limit: 9}, []string{"g6.xlarge eu-west-1a spot $0.43"}, 1, 5, 0.43, "t3.medium us-east-1 $0.04"},
		"a type":          {catalogue.Query{Types: []string{"M5.Large"}, Limit: 9}, []string{"m5.large eu-west-1 $0.1"}, 1, 5, 0.1, "t3.medium us-east-1 $0.04"},
		"a price":         {catalogue.Query{MaxPrice: &low, Check: needsGPU, Limit: 9}, []string{"g6.xlarge us-east-1 spot $0.4", "g6.xlarge eu-west-1b spot $0.42"}, 2, 4, 0.42, "g6.xlarge us-east-1 $0.8"},
		"nothing so low":  {catalogue.Query{MaxPrice: &none, Limit: 9}, nil, 0, 6, 0, "t3.medium us-east-1 $0.04"},
		"offered regions": {catalogue.Query{Offered: []string{"us-east-1"}, Check: needsGPU, Limit: 1}, []string{"g6.xlarge us-east-1 spot $0.4"}, 2, 1, 0.8, "t3.medium us-east-1 $0.04"},
		"a pin": {catalogue.Query{IsPlace: func(region, zone string) bool { return region == "eu-west-1" && (zone == "" || zone == "a") }, Limit: 9},
			[]string{"m5.large eu-west-1 $0.1", "g6.xlarge eu-west-1a spot $0.43", "g6.xlarge eu-west-1 $0.9"}, 3, 3, 0.9, "t3.medium us-east-1 $0.04"},
	} {
		found := table.Find(c.query)
		shown := map[string]bool{}
		for _, o := range found.Offers {
			shown[fmt.Sprint(o.Type, o.Region, o.Spot)] = true
		}
		if got := namesOf(found.Offers); !slices.Equal(got, c.offers) {
			t.Errorf("%s: found %q, want %q", name, got, c.offers)
		}
		if suitable, rejects := len(shown)+found.MoreSuitable, countTypes(found.Nearest)+found.MoreUnsuited; suitable != c.suitable || rejects != c.rejects {
			t.Errorf("%s: %d suit and %d do not, want %d and %d", name, suitable, rejects, c.suitable, c.rejects)
		}
		if found.HighestPrice != c.highest {
			t.Errorf("%s: the highest price is %g, want %g", name, found.HighestPrice, c.highest)
		}
		if got := append(namesOf(found.Nearest), "")[0]; got != c.nearest {
			t.Errorf("%s: the nearest is %q, want %q", name, got, c.nearest)
		}
	}
}

func countTypes(offers []dstack.Offer) int {
	seen := map[string]bool{}
	for _, o := range offers {
		seen[fmt.Sprint(o.Type, o.Region, o.Spot)] = true
	}
	return len(seen)
}

// Offers that cannot be had now come last, and take no place from those that can.
func TestFind_PutsWhatCannotBeHadLast(t *testing.T) {
	var rows []catalogue.Row
	for i := range 50 {
		rows = append(rows, plain(fmt.Sprintf("t%d", i), "us-east-1", 2, max(float64(i), 0.5)))
	}
	asked := 0
	found := newTable(t, rows...).Find(catalogue.Query{Limit: 3, Availability: func(o *dstack.Offer) dstack.Availability {
		asked++
		if o.Price < 40 {
			return dstack.NoQuota
		}
		return dstack.Available
	}})
	if got := namesOf(found.Offers); !slices.Equal(got, []string{"t40 us-east-1 $40", "t41 us-east-1 $41", "t42 us-east-1 $42"}) || found.MoreSuitable != 47 {
		t.Errorf("found %q and %d more", got, found.MoreSuitable)
	}
	if asked != 43 {
		t.Errorf("asked %d times", asked)
	}
}

// Of what does not suit, there are some for each reason, so that a plan can say what would help: the cheapest above the
// highest price, one of each other region, the types that lack the least.
func TestFind_NearestHasSomeOfEachReason(t *testing.T) {
	var rows []catalogue.Row
	for i := range 40 {
		rows = append(rows, g6(fmt.Sprintf("region-%d", i), 0.5), g6("here", 0.6+float64(i)), plain(fmt.Sprintf("t%d", i), "here", 2, 0.01))
	}
	limit := 0.55
	found := newTable(t, rows...).Find(catalogue.Query{Regions: []string{"here"}, MaxPrice: &limit, Check: needsGPU, Limit: 5})
	if len(found.Offers) > 0 || len(found.Nearest) != 60 {
		t.Fatalf("found %q, nearest %q", namesOf(found.Offers), namesOf(found.Nearest))
	}
	dear, plainTypes, regions := 0, 0, map[string]bool{}
	for _, o := range found.Nearest {
		switch {
		case o.Region != "here":
			regions[o.Region] = true
		case len(o.Hardware.GPUs) == 0:
			plainTypes++
		default:
			dear++
		}
	}
	if dear != 20 || plainTypes != 20 || len(regions) != 20 || found.CheapestPrice != 0.01 {
		t.Errorf("%d are dear, %d have no GPU, %d regions, the cheapest %g", dear, plainTypes, len(regions), found.CheapestPrice)
	}
}

func TestFind_LeavesOutFlags(t *testing.T) {
	flagged := plain("a4", "us-east1", 2, 1)
	flagged.Flags = []string{"gcp-a4"}
	table := newTable(t, flagged)
	if found := table.Find(catalogue.Query{Limit: 9}); len(found.Offers) > 0 || found.MoreUnsuited > 0 {
		t.Errorf("found %+v", found)
	}
	if found := table.Find(catalogue.Query{Limit: 9, Flags: catalogue.FlagsOf("gcp")}); len(found.Offers) != 1 {
		t.Errorf("found %+v", found)
	}
}

// One offer for each kind and number of GPUs in each region and market: the cheapest that can be had, or else the cheapest.
func TestFind_OnePerGPU(t *testing.T) {
	twin := func(r catalogue.Row, name string, price float64) catalogue.Row {
		r.Type, r.Price = name, price
		return r
	}
	double := twin(g6("us-east-1", 2), "g6.double", 2)
	double.GPUs = 2
	table := newTable(t, g6("us-east-1", 0.8), twin(g6("us-east-1", 1), "g6.2xlarge", 0.98), spot(g6("us-east-1", 0.8)), inZone(spot(g6("us-east-1", 0.9)), "b"),
		g6("eu-west-1", 0.9), twin(g6("eu-west-1", 1), "g6.2xlarge", 1.1), double, plain("t3.medium", "us-east-1", 2, 0.04))
	found := table.Find(catalogue.Query{OnePerGPU: true, Limit: 9, Availability: func(o *dstack.Offer) dstack.Availability {
		if o.Region == "eu-west-1" && o.Type == "g6.xlarge" {
			return dstack.NoQuota
		}
		return dstack.AvailabilityUnknown
	}})
	if got := namesOf(found.Offers); !slices.Equal(got, []string{"g6.xlarge us-east-1 spot $0.4", "g6.xlarge us-east-1 $0.8", "g6.2xlarge eu-west-1 $1.1",
		"g6.double us-east-1 $2", "g6.xlarge eu-west-1 $0.9"}) {
		t.Errorf("found %q", got)
	}
	if found.MoreSuitable != 2 { // another type with one GPU, and one without
		t.Errorf("%d more", found.MoreSuitable)
	}
}

// Types that suit but for their price are found, however many others nearly suit.
func TestFind_ShowsWhatIsOnlyTooDear(t *testing.T) {
	rows := []catalogue.Row{g6("us-east-1", 0.8)}
	for i := range 300 {
		rows = append(rows, plain(fmt.Sprint("t", i), "us-east-1", 2, 0.01))
	}
	limit, rank := 0.3, 0
	found := newTable(t, rows...).Find(catalogue.Query{Limit: 9, MaxPrice: &limit, Check: func(o *dstack.Offer) int {
		if len(o.Hardware.GPUs) > 0 {
			return -1
		}
		rank = (rank + 1) % 10
		return 1 + rank
	}})
	if len(found.Nearest) != 100 || found.Nearest[0].Type != "g6.xlarge" {
		t.Errorf("%d, first %+v", len(found.Nearest), found.Nearest[0])
	}
}
