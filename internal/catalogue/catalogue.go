package catalogue

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/loop"
)

const (
	// refreshInterval is how often a newer catalogue is looked for, and how old the prices of a cloud may be before it is
	// asked again.
	refreshInterval = 4 * time.Hour
	// retryInterval is how long to wait after a failure.
	retryInterval = 10 * time.Minute
)

// folderName is the name of the folder, in that of the server, for what was downloaded and asked.
const folderName = "catalogue"

// Account is the use of one cloud by one entry of the server's configuration.
type Account struct {
	Key     string   // of the backend: aws, aws-research
	Cloud   string   // the name of the cloud: aws, gcp
	Regions []string // that the account uses; empty: all, but then the cloud itself is asked only about DefaultRegions
	// ListTypes asks the cloud itself for the types of a region, which may take minutes; nil: it cannot be asked.
	ListTypes func(ctx context.Context, region string) ([]Row, error)
}

// regionsToAsk returns the regions that the cloud itself is asked about.
func (a Account) regionsToAsk() []string {
	if len(a.Regions) > 0 {
		return a.Regions
	}
	return DefaultRegions(a.Cloud)
}

// DefaultRegions returns the regions of a cloud that it is asked about for an account that uses all: each takes minutes.
func DefaultRegions(cloud string) []string {
	switch cloud {
	case "aws":
		return []string{"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1"}
	case "gcp":
		return []string{"us-central1", "us-east1", "us-west1", "europe-west1", "europe-west4", "asia-northeast1"}
	default:
		return nil
	}
}

// Settings says where a catalogue gets and keeps its rows.
type Settings struct {
	Folder string   // of the server
	URL    *url.URL // of a folder with catalogues, from ParseURL; nil: nothing is downloaded
	Log    *slog.Logger
}

// Catalogue has one table for each account. For each region it takes the rows of the downloaded catalogue, or else those
// that the cloud itself told, or else our own table. Tables are replaced in the background, and never wait for anything.
type Catalogue struct {
	settings    Settings
	fetcher     *fetcher
	failures    loop.RepeatFilter
	mu          sync.Mutex // protects what follows
	accounts    []*Prices
	downloaders map[string]*downloader // by cloud
	downloaded  map[string]*Table      // by cloud
}

// Prices are the types and prices of one account.
type Prices struct {
	account Account
	table   atomic.Pointer[Table]
	mu      sync.Mutex // protects what follows
	asked   askedPrices
	retryAt map[string]time.Time // regions that could not be asked
	failed  map[string]error     // by region, and of the download under its URL: why the latest attempt failed
}

// Table returns the present table. It never waits, and never returns nil.
func (p *Prices) Table() *Table { return p.table.Load() }

// Problem returns why the latest attempts to get newer prices failed; nil: none did.
func (p *Prices) Problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []error
	for _, key := range slices.Sorted(maps.Keys(p.failed)) {
		all = append(all, p.failed[key])
	}
	return errors.Join(all...)
}

// setProblem remembers why an attempt failed; nil: it did not.
func (p *Prices) setProblem(key string, problem error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if problem == nil {
		delete(p.failed, key)
	} else {
		p.failed[key] = problem
	}
}

// New returns a catalogue without accounts.
func New(s Settings) *Catalogue {
	s.Folder = filepath.Join(s.Folder, folderName)
	return &Catalogue{settings: s, fetcher: newFetcher(), downloaders: map[string]*downloader{}, downloaded: map[string]*Table{}}
}

// Add makes the catalogue keep the table of an account, and returns it. It reads what earlier processes left on disk. It
// is called before Tasks. An account whose key is known already is the same one.
func (c *Catalogue) Add(a Account) *Prices {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.accounts {
		if p.account.Key == a.Key {
			return p
		}
	}
	if c.settings.URL != nil && c.downloaders[a.Cloud] == nil {
		d := &downloader{cloud: a.Cloud, url: c.settings.URL, folder: c.settings.Folder, fetcher: c.fetcher}
		table, err := d.load()
		if err != nil {
			c.settings.Log.Warn("a kept catalogue cannot be read and is downloaded again", "cloud", a.Cloud, "err", err)
		}
		c.downloaders[a.Cloud], c.downloaded[a.Cloud] = d, table
	}
	p := &Prices{account: a, asked: askedPrices{account: a, folder: c.settings.Folder}, retryAt: map[string]time.Time{},
		failed: map[string]error{}}
	if err := p.asked.load(); err != nil {
		c.settings.Log.Warn("kept prices cannot be read and are asked for again", "backend", a.Key, "err", err)
	}
	c.accounts = append(c.accounts, p)
	p.rebuild(c.downloaded[a.Cloud])
	return p
}

// rebuild makes the table of what is there: for each region, the rows of the first table that has any.
func (p *Prices) rebuild(downloaded *Table) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if downloaded != nil && hasAll(downloaded, p.account.Regions) {
		p.table.Store(downloaded) // all accounts of the cloud share it
		return
	}
	b := NewBuilder("")
	taken := map[string]bool{}
	for _, from := range []*Table{downloaded, p.asked.table(), ownTable(p.account.Cloud)} {
		if from == nil {
			continue
		}
		added := map[string]bool{}
		for r := range from.Rows {
			if taken[r.Region] || len(p.account.Regions) > 0 && !containsFold(p.account.Regions, r.Region) {
				continue
			}
			b.source = from.sourceOf(r.Region)
			b.Add(r)
			added[r.Region] = true
		}
		maps.Copy(taken, added)
	}
	table, _, _ := b.Build()
	p.table.Store(table)
}

// hasAll reports whether a table has rows of all regions, or of any if none is named.
func hasAll(t *Table, regions []string) bool {
	for _, region := range regions {
		if !containsFold(t.regions, region) {
			return false
		}
	}
	return t.Len() > 0
}
