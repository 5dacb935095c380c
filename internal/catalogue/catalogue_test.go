package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/loop"
)

// publishFile puts a catalogue of AWS into a folder.
func publishFile(t *testing.T, folder, version, rows string) {
	t.Helper()
	path := filepath.Join(folder, "aws", version)
	err := os.MkdirAll(path, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(path, "catalog.zip"), packZip(t, map[string]string{"aws.csv": csvHead + rows}), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "aws", "version"), []byte(version), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newCatalogue(t *testing.T, folder, published string) *Catalogue {
	t.Helper()
	s := Settings{Folder: folder, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if published != "" {
		u, err := ParseURL("file://" + published)
		if err != nil {
			t.Fatal(err)
		}
		s.URL = u
	}
	return New(s)
}

// runTasks runs the tasks of a catalogue until the test ends.
func runTasks(t *testing.T, c *Catalogue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := loop.Run(ctx, c.Tasks()...); err != nil {
			t.Error(err)
		}
	}()
	return func() { cancel(); <-done }
}

// cloudPrices is a cloud that can be asked.
type cloudPrices struct {
	mu    sync.Mutex
	asked []string // regions
	fails map[string]error
	price float64
}

// with reads or changes the cloud.
func (c *cloudPrices) with(do func(c *cloudPrices)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c)
}

// countAsked returns how many regions were asked for.
func (c *cloudPrices) countAsked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func (c *cloudPrices) list(_ context.Context, region string) ([]Row, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, region)
	if err := c.fails[region]; err != nil {
		return nil, err
	}
	return []Row{{Type: "x1.large", Region: region, Price: c.price, CPUs: 2, Arch: "x86", MemoryMiB: 8192}}, nil
}

// sourcesOf returns how many rows of which source each region has.
func sourcesOf(p *Prices) string {
	counts := map[string]int{}
	for r := range p.Table().Rows {
		counts[r.Region+": "+p.Table().sourceOf(r.Region)]++
	}
	var all []string
	for key, n := range counts {
		all = append(all, fmt.Sprintf("%s (%d)", key, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Without a catalogue and without an answer of the cloud there is our own table; then what the cloud says; and what the
// catalogue has, as soon as there is one.
func TestCatalogue_TakesTheBestSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins on 2000-01-01
		published, folder := t.TempDir(), t.TempDir()
		cloud := &cloudPrices{price: 1, fails: map[string]error{"us-east-1": errors.New("not allowed: pricing:GetProducts")}}
		c := newCatalogue(t, folder, published)
		account := Account{Key: "aws", Cloud: "aws", Regions: []string{"us-east-1", "eu-west-1"}, ListTypes: cloud.list}
		prices := c.Add(account)
		own := "us-east-1: dstack's own table of 2026-11-28 (34)"
		if got := sourcesOf(prices); got != own {
			t.Errorf("at first %s", got)
		}

		stop := runTasks(t, c)
		synctest.Wait()
		asked := "eu-west-1: aws itself, asked on 2000-01-01 (1)"
		if got := sourcesOf(prices); got != asked+", "+own {
			t.Errorf("after the cloud was asked: %s", got)
		}
		if err := prices.Problem(); err == nil || !strings.Contains(err.Error(), "aws/version") || !strings.Contains(err.Error(), "GetProducts") {
			t.Errorf("problem %v", err)
		}

		publishFile(t, published, "19991231", goodRow) // of us-east-1
		time.Sleep(retryInterval + time.Second)
		synctest.Wait()
		downloaded := "us-east-1: catalogue of 1999-12-31 (1)"
		if got := sourcesOf(prices); got != asked+", "+downloaded {
			t.Errorf("after the catalogue was published: %s", got)
		}
		stop()

		// The next process has all that at once, and asks for nothing.
		before := cloud.countAsked()
		c = newCatalogue(t, folder, published)
		prices = c.Add(account)
		if got := sourcesOf(prices); got != asked+", "+downloaded {
			t.Errorf("after a restart: %s", got)
		}
		stop = runTasks(t, c)
		synctest.Wait()
		if n := cloud.countAsked() - before; n != 0 {
			t.Errorf("asked for %d regions", n)
		}

		// A catalogue with all regions makes questions unnecessary.
		publishFile(t, published, "20000101", goodRow+strings.Replace(goodRow, "us-east-1", "eu-west-1", 1))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		asked = "eu-west-1: catalogue of 2000-01-01 (1)"
		if got := sourcesOf(prices); got != asked+", us-east-1: catalogue of 2000-01-01 (1)" {
			t.Errorf("with all regions: %s", got)
		}
		if n := cloud.countAsked() - before; n > 1 {
			t.Errorf("asked for %d regions", n)
		}
		if prices.Problem() != nil {
			t.Errorf("problem %v", prices.Problem())
		}
		if other := c.Add(Account{Key: "aws-2", Cloud: "aws"}); other.Table() != prices.Table() {
			t.Error("accounts of one cloud do not share the table")
		}
		stop()
	})
}

// A cloud is asked again every few hours. When it does not answer, what it said before stays.
func TestCatalogue_AsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &cloudPrices{price: 1, fails: map[string]error{}}
		c := newCatalogue(t, t.TempDir(), "")
		prices := c.Add(Account{Key: "aws", Cloud: "aws", Regions: []string{"eu-west-1", "eu-west-2"}, ListTypes: cloud.list})
		defer runTasks(t, c)()
		priceNow := func() float64 { synctest.Wait(); return slices.Collect(prices.Table().Rows)[0].Price }
		if got := priceNow(); got != 1 || cloud.countAsked() != 2 {
			t.Errorf("price %g, asked for %d regions", got, cloud.countAsked())
		}
		cloud.with(func(c *cloudPrices) { c.price = 2 })
		time.Sleep(refreshInterval - time.Minute)
		if got := priceNow(); got != 1 || cloud.countAsked() != 2 {
			t.Errorf("price %g, asked for %d regions", got, cloud.countAsked())
		}
		time.Sleep(2 * time.Minute)
		if got := priceNow(); got != 2 || cloud.countAsked() != 4 {
			t.Errorf("price %g, asked for %d regions", got, cloud.countAsked())
		}
		cloud.with(func(c *cloudPrices) {
			c.fails = map[string]error{"eu-west-1": errors.New("down"), "eu-west-2": errors.New("down")}
		})
		time.Sleep(refreshInterval + time.Hour)
		if got := priceNow(); got != 2 || cloud.countAsked() < 10 || cloud.countAsked() > 20 || prices.Problem() == nil {
			t.Errorf("price %g, asked for %d regions, problem %v", got, cloud.countAsked(), prices.Problem())
		}
		cloud.with(func(c *cloudPrices) { c.fails, c.price = nil, 3 })
		time.Sleep(retryInterval + time.Minute)
		if got := priceNow(); got != 3 || prices.Problem() != nil {
			t.Errorf("price %g, problem %v", got, prices.Problem())
		}
	})
}

// Kept prices that cannot be read are asked for again.
func TestCatalogue_DamagedFile(t *testing.T) {
	folder := t.TempDir()
	cloud := &cloudPrices{price: 1}
	account := Account{Key: "aws", Cloud: "aws", Regions: []string{"eu-west-1"}, ListTypes: cloud.list}
	path := filepath.Join(folder, folderName, "aws.asked")
	if err := writeFile(path, []byte("not gzip")); err != nil {
		t.Fatal(err)
	}
	c := newCatalogue(t, folder, "")
	prices := c.Add(account)
	if prices.Table().Len() != 0 {
		t.Errorf("%d rows", prices.Table().Len())
	}
	c.askNext(t.Context(), prices)
	if prices = newCatalogue(t, folder, "").Add(account); prices.Table().Len() != 1 {
		t.Errorf("%d rows after a restart", prices.Table().Len())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, error %v", info, err)
	}
}

func TestOwnTable(t *testing.T) {
	for cloud, text := range splitOwn(ownText) {
		table, skipped, err := readTable(strings.NewReader(string(text)), cloud, "own")
		if err != nil || skipped != nil || table.Len() < 15 {
			t.Errorf("%s: %v, skipped %v, error %v", cloud, table, skipped, err)
		}
	}
	if ownTable("azure") != nil {
		t.Error("there is a table of an unknown cloud")
	}
}
