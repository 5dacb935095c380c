package catalogue

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// maxCSVBytes limits the unpacked catalogue of a cloud.
const maxCSVBytes = 512 << 20

// copyOf is the last good copy of a downloaded catalogue of a cloud.
type copyOf struct {
	URL        string    `json:"url"`         // the configured one
	Version    string    `json:"version"`     // of the catalogue, as its publisher names it
	VersionTag string    `json:"version_tag"` // of the file that says the version
	Date       time.Time `json:"date"`        // of the catalogue
	FetchedAt  time.Time `json:"fetched_at"`
}

// validVersion are the names of versions. They become parts of paths.
var validVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// downloader downloads the catalogue of one cloud and keeps the last good copy of it.
type downloader struct {
	cloud   string
	url     *url.URL
	folder  string
	fetcher *fetcher
	last    copyOf // zero: there is none
}

func (d *downloader) zipFile() string  { return filepath.Join(d.folder, d.cloud+".zip") }
func (d *downloader) infoFile() string { return filepath.Join(d.folder, d.cloud+".json") }

// load returns the table of the last good copy; nil: there is none of the configured URL.
func (d *downloader) load() (t *Table, problem error) {
	var last copyOf
	if err := readJSON(d.infoFile(), &last); err != nil || last.URL != d.url.String() {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	packed, err := os.ReadFile(d.zipFile())
	if err != nil {
		return nil, err
	}
	t, _, err = readZip(packed, d.cloud, last.source())
	if err == nil {
		d.last = last
	}
	return t, err
}

// source says where the prices are from, for the user.
func (c copyOf) source() string { return "catalogue of " + c.Date.UTC().Format(time.DateOnly) }

// refresh asks for a newer version. It returns nil if the copy has the newest. A version that cannot be used does not
// replace the copy.
func (d *downloader) refresh(ctx context.Context, now time.Time) (t *Table, skipped error, err error) {
	version, err := d.fetcher.fetch(ctx, d.url.JoinPath(d.cloud, "version"), d.last.VersionTag, maxVersionBytes)
	if err != nil || version.isSame {
		return nil, nil, err
	}
	name := strings.TrimSpace(string(version.body))
	if !validVersion.MatchString(name) {
		return nil, nil, fmt.Errorf("%s is no version of a catalogue: %q", d.url.JoinPath(d.cloud, "version").Redacted(), name)
	}
	if name == d.last.Version {
		d.last.VersionTag = version.tag
		return nil, nil, nil
	}
	packed, err := d.fetcher.fetch(ctx, d.url.JoinPath(d.cloud, name, "catalog.zip"), "", maxZipBytes)
	if err != nil {
		return nil, nil, err
	}
	next := copyOf{URL: d.url.String(), Version: name, VersionTag: version.tag, Date: findDate(name, packed.changedAt, now), FetchedAt: now}
	t, skipped, err = readZip(packed.body, d.cloud, next.source())
	if err != nil {
		return nil, nil, fmt.Errorf("version %s of the catalogue of %s cannot be used: %w", name, d.cloud, err)
	}
	if err := writeFile(d.zipFile(), packed.body); err != nil {
		return t, skipped, err
	}
	if err := writeJSON(d.infoFile(), next); err != nil {
		return t, skipped, err
	}
	d.last = next
	return t, skipped, nil
}

// findDate returns the date of a version: the one that its name begins with, or when its file changed.
func findDate(version string, changedAt, now time.Time) time.Time {
	if len(version) >= 8 {
		if date, err := time.Parse("20060102", version[:8]); err == nil {
			return date
		}
	}
	if len(version) >= 10 {
		if date, err := time.Parse(time.DateOnly, version[:10]); err == nil {
			return date
		}
	}
	if !changedAt.IsZero() {
		return changedAt
	}
	return now
}

// minUsableShare is how much of a catalogue's rows must be usable, so that a catalogue in another format does not replace
// a good one.
const minUsableShare = 0.5

// readZip returns the table of a cloud in a packed catalogue, and which rows were skipped.
func readZip(packed []byte, cloud, source string) (t *Table, skipped error, err error) {
	archive, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, nil, fmt.Errorf("it is no zip file: %w", err)
	}
	for _, file := range archive.File {
		if file.Name != cloud+".csv" {
			continue
		}
		content, err := file.Open()
		if err != nil {
			return nil, nil, err
		}
		defer content.Close()
		return readTable(content, cloud, source)
	}
	return nil, nil, fmt.Errorf("it has no file %s.csv", cloud)
}

func readTable(content io.Reader, cloud, source string) (t *Table, skipped error, err error) {
	limited := &io.LimitedReader{R: content, N: maxCSVBytes}
	b := NewBuilder(source)
	if err := readCSV(b, cloud, limited, maxRows); err != nil {
		return nil, nil, err
	}
	if limited.N <= 0 {
		return nil, nil, fmt.Errorf("it has more than %d bytes", maxCSVBytes)
	}
	t, n, problem := b.Build()
	if t.Len() == 0 && n == 0 {
		return nil, nil, errors.New("it has no rows")
	}
	if n > 0 {
		skipped = fmt.Errorf("%d of %d rows cannot be used; the first: %w", n, n+t.Len(), problem)
	}
	if float64(t.Len()) < minUsableShare*float64(n+t.Len()) {
		return nil, nil, skipped
	}
	return t, skipped, nil
}
