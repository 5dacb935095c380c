package catalogue

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/gpu"
)

// What a file may have at most, so that a broken or hostile one does not use up the memory.
const (
	maxRows        = 1_000_000
	maxRecordBytes = 1 << 20
)

// requiredColumns are the columns without which a file is no catalogue as gpuhunt publishes it, whose name is that of the
// cloud. There may also be gpu_name, gpu_memory, disk_size, gpu_vendor, flags and cpu_arch; others are ignored.
var requiredColumns = []string{"instance_name", "location", "price", "cpu", "memory", "gpu_count", "spot"}

// readCSV adds the rows of a catalogue of a cloud, at most limit. Rows that cannot be used are counted and left out; an error says that
// the file as a whole is no catalogue.
func readCSV(b *Builder, cloud string, from io.Reader, limit int) error {
	limited := &recordLimiter{from: from, allowed: maxRecordBytes}
	reader := csv.NewReader(limited)
	reader.ReuseRecord, reader.FieldsPerRecord = true, -1
	head, err := reader.Read()
	if err != nil {
		return fmt.Errorf("it has no line with the names of its columns: %w", err)
	}
	c := csvRow{cloud: cloud, columns: map[string]int{}}
	for i, name := range head {
		c.columns[strings.TrimPrefix(name, "\ufeff")] = i
	}
	for _, name := range requiredColumns {
		if _, ok := c.columns[name]; !ok {
			return fmt.Errorf("it has no column %s", name)
		}
	}
	for n := 0; ; n++ {
		limited.allowed = reader.InputOffset() + maxRecordBytes
		c.fields, err = reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case n >= limit:
			return fmt.Errorf("it has more than %d rows", limit)
		}
		if broken, ok := errors.AsType[*csv.ParseError](err); ok {
			b.Skip(broken)
			continue
		}
		if err != nil {
			return err
		}
		row, err := c.read()
		if err != nil {
			line, _ := reader.FieldPos(0)
			b.Skip(fmt.Errorf("line %d: %w", line, err))
			continue
		}
		b.Add(row)
	}
}

// recordLimiter is a reader that fails in a record that is too long, because the reader of records keeps a whole one in
// memory.
type recordLimiter struct {
	from          io.Reader
	read, allowed int64
}

func (l *recordLimiter) Read(p []byte) (int, error) {
	if l.read > l.allowed {
		return 0, fmt.Errorf("it has a row of more than %d bytes", maxRecordBytes)
	}
	n, err := l.from.Read(p)
	l.read += int64(n)
	return n, err
}

// csvRow is a line of a catalogue.
type csvRow struct {
	cloud   string
	columns map[string]int
	fields  []string
}

// get returns the value of a column; empty: there is none.
func (c *csvRow) get(column string) string {
	i, ok := c.columns[column]
	if !ok || i >= len(c.fields) {
		return ""
	}
	return c.fields[i]
}

func (c *csvRow) read() (Row, error) {
	r := Row{Type: c.get("instance_name"), Arch: strings.ToLower(c.get("cpu_arch")), Flags: strings.Fields(c.get("flags"))}
	r.Region, r.Zone = splitLocation(c.cloud, c.get("location"))
	if r.Arch == "" {
		r.Arch = "x86"
	}
	var err error
	var memory, disk, gpuMemory float64
	switch spot := strings.ToLower(c.get("spot")); spot {
	case "true", "false":
		r.Spot = spot == "true"
	default:
		return r, fmt.Errorf("spot is %q, not true or false", spot)
	}
	if r.Price, err = strconv.ParseFloat(c.get("price"), 64); err != nil {
		return r, fmt.Errorf("price is %q, not a number", c.get("price"))
	}
	if r.CPUs, err = strconv.Atoi(c.get("cpu")); err != nil {
		return r, fmt.Errorf("cpu is %q, not a whole number", c.get("cpu"))
	}
	if r.GPUs, err = strconv.Atoi(c.get("gpu_count")); err != nil {
		return r, fmt.Errorf("gpu_count is %q, not a whole number", c.get("gpu_count"))
	}
	for _, size := range []struct {
		column string
		to     *float64
	}{{"memory", &memory}, {"disk_size", &disk}, {"gpu_memory", &gpuMemory}} {
		if *size.to, err = readGigabytes(c.get(size.column)); err != nil {
			return r, fmt.Errorf("%s is %q, not a number of gigabytes", size.column, c.get(size.column))
		}
	}
	r.MemoryMiB, r.DiskMiB = toMiB(memory), toMiB(disk)
	if r.GPUs > 0 {
		r.setGPU(c.get("gpu_vendor"), c.get("gpu_name"), toMiB(gpuMemory))
	}
	return r, nil
}

const maxGigabytes = 1 << 20

func readGigabytes(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err == nil && !(v >= 0 && v <= maxGigabytes) { // NaN, too
		err = strconv.ErrRange
	}
	return v, err
}

func toMiB(gigabytes float64) int64 { return int64(math.Round(gigabytes * 1024)) }

// maxPartOfCard is how much of the memory of its model a card has at most that is only a part of one.
const maxPartOfCard = 0.6

// setGPU sets what GPUs a row has, from the names of catalogues. A maker or a model that is not known is kept. One card
// with much less memory than its model has is a part of a card.
func (r *Row) setGPU(maker, name string, memoryMiB int64) {
	maker = strings.ToLower(maker)
	asked := gpu.ParseRequest(name)
	r.GPUName, r.GPUMaker = asked.Names[0], maker
	if maker == "" {
		r.GPUMaker = asked.Maker
	}
	if r.GPUMaker == "" {
		r.GPUMaker = gpu.Nvidia
	}
	r.GPUMemoryMiB = memoryMiB
	model, known := gpu.Find(r.GPUName)
	if !known || len(model.Sizes) == 0 {
		return
	}
	least := int64(slices.Min(model.Sizes)) << 10
	if memoryMiB == 0 {
		r.GPUMemoryMiB = least
	} else if part := float64(memoryMiB) / float64(least); r.GPUs == 1 && part < maxPartOfCard {
		r.GPUs, r.GPUFraction = 0, roundPart(part)
	}
}

// roundPart returns the half, the quarter, … of a card that has about this part of its memory: clouds tell a little less
// than that.
func roundPart(part float64) float64 {
	const tolerance = 0.1
	for whole := 0.5; whole >= 1.0/64; whole /= 2 {
		if math.Abs(part/whole-1) < tolerance {
			return whole
		}
	}
	return part
}

// splitLocation returns the region and the zone of a location: catalogues of GCP have one row for each zone.
func splitLocation(cloud, location string) (region, zone string) {
	at := strings.LastIndexByte(location, '-')
	if cloud != "gcp" || at < 0 || len(location) != at+2 || location[at+1] < 'a' || location[at+1] > 'z' {
		return location, ""
	}
	return location[:at], location
}

// FlagsOf returns the flags of a catalogue's rows that this version understands. Catalogues mark with flags what programs
// must know before they may use a type.
func FlagsOf(cloud string) []string {
	if cloud == "gcp" {
		return []string{"gcp-a4", "gcp-g4"} // machine families whose GPUs come with the type
	}
	return nil
}
