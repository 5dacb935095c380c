package catalogue

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// askTimeout limits how long a cloud may take for one region.
const askTimeout = 10 * time.Minute

// askedPrices are the types and prices that a cloud itself told, for each region. They are kept on disk.
type askedPrices struct {
	account Account
	folder  string
	Regions map[string]askedRegion
}

// askedRegion is what a cloud said about a region.
type askedRegion struct {
	At   time.Time
	Rows []Row
}

func (a *askedPrices) file() string { return filepath.Join(a.folder, a.account.Key+".asked") }

// askedFormat is the version of the file's format.
const askedFormat = 1

// askedFile is the content of the file.
type askedFile struct {
	Format  int
	Regions map[string]askedRegion
}

// load reads the file. Without one, and from one of another format, there are no prices.
func (a *askedPrices) load() error {
	packed, err := os.ReadFile(a.file())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	var content askedFile
	if err := gob.NewDecoder(bufio.NewReader(unpacked)).Decode(&content); err != nil {
		return err
	}
	if content.Format == askedFormat {
		a.Regions = content.Regions
	}
	return nil
}

func (a *askedPrices) save() error {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	err := gob.NewEncoder(w).Encode(askedFile{askedFormat, a.Regions})
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return writeFile(a.file(), packed.Bytes())
}

// list asks the cloud for the types of a region.
func (a *askedPrices) list(ctx context.Context, region string) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rows, err := a.account.ListTypes(ctx, region)
	rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Region != region })
	if err == nil && len(rows) == 0 {
		err = errors.New("it lists no types with prices")
	}
	if err != nil {
		return nil, fmt.Errorf("region %s: %w", region, err)
	}
	return rows, nil
}

// keep replaces what the cloud said about a region before.
func (a *askedPrices) keep(region string, rows []Row, now time.Time) error {
	if a.Regions == nil {
		a.Regions = map[string]askedRegion{}
	}
	a.Regions[region] = askedRegion{now, rows}
	return a.save()
}

// source says where the prices of a region are from, for the user.
func (a *askedPrices) source(region string) string {
	return fmt.Sprintf("%s itself, asked on %s", a.account.Cloud, a.Regions[region].At.UTC().Format(time.DateOnly))
}

// table returns the rows of all regions; nil: there are none.
func (a *askedPrices) table() *Table {
	if len(a.Regions) == 0 {
		return nil
	}
	b := NewBuilder("")
	for region, asked := range a.Regions {
		b.source = a.source(region)
		for _, r := range asked.Rows {
			b.Add(r)
		}
	}
	t, _, _ := b.Build()
	return t
}
