package catalogue_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"dstack/internal/catalogue"
	"dstack/internal/dstack"
)

// newManyRows returns 100,000 rows of 20 regions, as large clouds have them: 1,250 types, each on demand and in one of two
// zones as spot.
func newManyRows() (rows []catalogue.Row) {
	cards := []string{"", "", "", "", "L4", "A10G", "T4", "A100", "H100", "L40S"}
	for i := range 1250 {
		r := catalogue.Row{Type: fmt.Sprintf("f%d.%dxlarge", i/10, 1+i%10), CPUs: 2 << (i % 7), Arch: "x86", MemoryMiB: 4096 << (i % 8)}
		if r.GPUName = cards[i%len(cards)]; r.GPUName != "" {
			r.GPUs, r.GPUMaker, r.GPUMemoryMiB = 1<<(i%4), "nvidia", 24<<10
		}
		for region := range 20 {
			r.Region, r.Zone, r.Spot, r.Price = fmt.Sprintf("region-%d", region), "", false, 0.01*float64(1+i)+0.001*float64(region)
			rows = append(rows, r)
			r.Spot = true
			for zone := range 3 {
				r.Zone, r.Price = fmt.Sprintf("region-%d%c", region, 'a'+zone), 0.003*float64(1+i)+0.0001*float64(region*3+zone)
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A table of 100,000 rows needs less than 16 MB, and a search in it a few milliseconds; the bound is for machines that are
// busy.
func TestTable_OfManyRowsIsSmallAndQuick(t *testing.T) {
	rows := newManyRows()
	before := heapInUse()
	table, _, _ := catalogue.NewTable("test", rows)
	size := int64(heapInUse()) - int64(before)
	if t.Logf("%d rows need %d KiB", table.Len(), size>>10); table.Len() != 100_000 || size > 16<<20 {
		t.Errorf("%d rows need %d bytes", table.Len(), size)
	}
	best := time.Hour
	for range 5 {
		began := time.Now()
		found := table.Find(catalogue.Query{Check: needsGPU, Limit: 1000})
		best = min(best, time.Since(began))
		if len(found.Offers) != 1000 || found.MoreSuitable < 20_000 {
			t.Fatalf("%d offers, %d more", len(found.Offers), found.MoreSuitable)
		}
	}
	if t.Logf("a search takes %s", best); best > 100*time.Millisecond {
		t.Errorf("a search takes %s", best)
	}
	runtime.KeepAlive(rows)
}

func BenchmarkFind(b *testing.B) {
	table, _, _ := catalogue.NewTable("test", newManyRows())
	limit := 5.0
	for name, q := range map[string]catalogue.Query{
		"any": {Limit: 1000}, "gpu": {Check: needsGPU, Limit: 1000}, "few": {Check: needsGPU, Limit: 300},
		"nothing": {Check: func(o *dstack.Offer) int { return len(strings.Fields(o.Type)) }, Regions: []string{"region-3"}, MaxPrice: &limit, Limit: 1000},
		"groups":  {OnePerGPU: true, Limit: 20_000},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Find(q)
			}
		})
	}
}
