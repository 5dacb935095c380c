package catalogue

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// ownDate is when the prices of own.csv were looked up.
const ownDate = "2026-11-28"

// ownText has on-demand prices of the commonest types, from the public price pages of the clouds
// (aws.amazon.com/ec2/pricing/on-demand, cloud.google.com/products/compute/pricing). It is used for regions of which
// nothing else is known.
//
//go:embed own.csv
var ownText []byte

// ownTables are the tables of our own, by cloud.
var ownTables = sync.OnceValue(func() map[string]*Table {
	tables := map[string]*Table{}
	for cloud, text := range splitOwn(ownText) {
		b := NewBuilder("dstack's own table of " + ownDate)
		if err := readCSV(b, cloud, bytes.NewReader(text), maxRows); err != nil {
			panic(fmt.Sprintf("own.csv: %v", err)) // a test reads it, too
		}
		tables[cloud], _, _ = b.Build()
	}
	return tables
})

// splitOwn returns the lines of each cloud, each for every region that it names.
func splitOwn(text []byte) map[string][]byte {
	files := map[string][]byte{}
	head, lines, _ := strings.Cut(string(text), "\n")
	_, columns, _ := strings.Cut(head, ",")
	for line := range strings.Lines(lines) {
		cloud, rest, _ := strings.Cut(line, ",")
		name, rest, _ := strings.Cut(rest, ",")
		regions, rest, _ := strings.Cut(rest, ",")
		if files[cloud] == nil {
			files[cloud] = []byte(columns + "\n")
		}
		for region := range strings.FieldsSeq(regions) {
			files[cloud] = fmt.Appendf(files[cloud], "%s,%s,%s", name, region, rest)
		}
	}
	return files
}

// ownTable returns our own table of a cloud; nil: there is none.
func ownTable(cloud string) *Table { return ownTables()[cloud] }
