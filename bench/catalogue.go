package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"dstack/internal/catalogue"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/loop"
)

// The synthetic catalogue: 100,000 rows.
const (
	benchedTypes   = 1250
	benchedRegions = 20
	benchedZones   = 3 // with spot prices of their own
	benchedPlan    = `{"configuration": {"type": "service", "port": "auto", "commands": ["true"], "resources": {"cpu": "2..", "memory": "8GB..", "gpu": "24GB..:1..", "disk": null}, "max_price": 35}}`
)

// catalogueBench is a published catalogue, and an account to rent its machines in.
type catalogueBench struct {
	folder string // file URL of it is the published catalogue
	csv    string
	ec2    *ec2test.Server
	server *dstackServer
}

// measureCatalogue measures a plan over the offers of a large catalogue, beside a linear scan of the same rows in Python, and
// the memory of the catalogue.
func (b *benchmark) measureCatalogue(rounds int) error {
	c := &catalogueBench{folder: filepath.Join(b.dir, "published")}
	if err := c.publish(); err != nil {
		return err
	}
	size, load, err := c.measureTable()
	if err != nil {
		return err
	}
	defer c.stop()
	if err := c.start(b); err != nil {
		return err
	}
	cases := []benchmarkCase{
		{"plan", c.measurePlan}, {"groups", func() (float64, error) {
			return c.callOffers(strings.Replace(benchedPlan, `{"conf`, `{"group_by": ["gpu"], "conf`, 1))
		}},
		{"python", c.measurePython},
	}
	samples, err := b.runRounds(cases, rounds)
	if err != nil {
		return err
	}
	plan, scan := median(samples["plan"]), median(samples["python"])
	fmt.Printf("catalogue of 100,000 rows in %d regions\n", benchedRegions)
	fmt.Printf("  memory of the table        %8.1f MB\n", float64(size)/1e6)
	fmt.Printf("  unpacked and read in       %8.0f ms\n", load)
	fmt.Printf("  plan at the server         %8.1f ms (the whole call)\n", plan)
	fmt.Printf("  offers grouped by GPU      %8.1f ms\n", median(samples["groups"]))
	fmt.Printf("  linear scan in Python      %8.1f ms, %.0f times the plan\n", scan, scan/plan)
	return nil
}

// start starts a server whose offers are those of the catalogue, in an account that has all of its types.
func (c *catalogueBench) start(b *benchmark) (err error) {
	regions, types := map[string]ec2test.Region{}, []ec2test.Type{}
	for i := range benchedRegions {
		r := ec2test.Region{}
		for zone := range benchedZones {
			r.Zones = append(r.Zones, zoneName(i, zone))
		}
		regions[regionName(i)] = r
	}
	for i := range benchedTypes {
		types = append(types, ec2test.Type{Name: typeName(i), VCPUs: 2, MemoryMiB: 4096, Arch: "x86_64", Price: 1})
	}
	if c.ec2, err = ec2test.Start(ec2test.Options{Regions: regions, Types: types}); err != nil {
		return err
	}
	backend := fmt.Sprintf("type: aws\n    creds: {type: access_key, access_key: %s, secret_key: %s}\n    endpoint: %s\n    regions: [%s]\ncatalog: {url: 'file://%s'}",
		ec2test.AccessKey, ec2test.SecretKey, c.ec2.URL, strings.Join(listRegions(), ", "), c.folder)
	if c.server, err = startServerWith(b.binary, filepath.Join(b.dir, "catalogue"), backend); err != nil {
		return err
	}
	return c.waitForOffers()
}

func (c *catalogueBench) stop() {
	if c.server != nil {
		c.server.stop()
	}
	if c.ec2 != nil {
		c.ec2.Close()
	}
}

func regionName(i int) string     { return fmt.Sprintf("aa-bench-%d", i+1) }
func zoneName(i, zone int) string { return regionName(i) + string(rune('a'+zone)) }
func typeName(i int) string       { return fmt.Sprintf("g%d.%dxlarge", i/10, 1+i%10) }

func listRegions() (names []string) {
	for i := range benchedRegions {
		names = append(names, regionName(i))
	}
	return names
}

// publish writes the catalogue as gpuhunt publishes it, and as a file for Python.
func (c *catalogueBench) publish() error {
	cards := []string{"", "", "", "", "L4,24", "A10G,24", "T4,16", "A100,40", "H100,80", "L40S,48"}
	var text bytes.Buffer
	text.WriteString("instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data\n")
	for i := range benchedTypes {
		card, count, vendor := cards[i%len(cards)], 1<<(i%4), "nvidia"
		if card == "" {
			card, count, vendor = ",", 0, ""
		}
		for region := range benchedRegions {
			for market := range 1 + benchedZones { // on demand, and spot at several prices
				price := 0.01*float64(1+i) + 0.001*float64(region)
				if market > 0 {
					price = price*0.3 + 0.0001*float64(market)
				}
				fmt.Fprintf(&text, "%s,%s,%g,%d,%d,%d,%s,%s,,%s,,x86,{}\n", typeName(i), regionName(region), price, 2<<(i%7), 4<<(i%8), count, card,
					map[bool]string{true: "True", false: "False"}[market > 0], vendor)
			}
		}
	}
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	f, err := w.Create("aws.csv")
	if err == nil {
		_, err = f.Write(text.Bytes())
	}
	if err = errors.Join(err, w.Close(), os.MkdirAll(filepath.Join(c.folder, "aws", "20261128"), 0o755)); err != nil {
		return err
	}
	c.csv = filepath.Join(c.folder, "aws.csv")
	return errors.Join(os.WriteFile(c.csv, text.Bytes(), 0o600), os.WriteFile(filepath.Join(c.folder, "aws", "version"), []byte("20261128"), 0o600),
		os.WriteFile(filepath.Join(c.folder, "aws", "20261128", "catalog.zip"), packed.Bytes(), 0o600))
}

// measureTable returns the bytes that the catalogue's table needs, and the milliseconds until it is read.
func (c *catalogueBench) measureTable() (size uint64, load float64, err error) {
	u, err := catalogue.ParseURL("file://" + c.folder)
	if err != nil {
		return 0, 0, err
	}
	folder, err := os.MkdirTemp(c.folder, "kept")
	if err != nil {
		return 0, 0, err
	}
	before := heapSize()
	all := catalogue.New(catalogue.Settings{Folder: folder, URL: u, Log: slog.New(slog.DiscardHandler)})
	prices := all.Add(catalogue.Account{Key: "aws", Cloud: "aws", Regions: listRegions()})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, all.Tasks()...) }()
	for prices.Table().Len() == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	load = toMilliseconds(time.Since(began))
	cancel()
	if err := <-done; err != nil || prices.Table().Len() == 0 {
		return 0, 0, fmt.Errorf("the catalogue was not read: %w", err)
	}
	size = heapSize() - before
	runtime.KeepAlive(all)
	return size, load, nil
}

func heapSize() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// waitForOffers waits until the server has read the catalogue.
func (c *catalogueBench) waitForOffers() error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		answer, err := c.post(benchedPlan)
		if err != nil {
			return err
		}
		if bytes.Contains(answer, []byte(`"catalogue of 2026-11-28"`)) {
			return nil
		}
	}
	return errors.New("the server offers nothing of the catalogue")
}

func (c *catalogueBench) measurePlan() (float64, error) { return c.callOffers(benchedPlan) }

// callOffers returns the milliseconds of a call that lists offers, the fastest of a few.
func (c *catalogueBench) callOffers(body string) (float64, error) {
	best := time.Hour
	for range 5 {
		began := time.Now()
		if _, err := c.post(body); err != nil {
			return 0, err
		}
		best = min(best, time.Since(began))
	}
	return toMilliseconds(best), nil
}

func (c *catalogueBench) post(body string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/api/project/main/offers/list", c.server.port), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("offers/list: %d %.300s", response.StatusCode, answer)
	}
	return answer, err
}

// measurePython returns the milliseconds of a linear scan.
func (c *catalogueBench) measurePython() (float64, error) {
	python := "python3"
	if chosen := os.Getenv("DSTACK_TEST_PYTHON"); chosen != "" {
		python = chosen
	}
	out, err := exec.Command(python, filepath.Join("bench", "testdata", "scan_catalogue.py"), c.csv).Output()
	if err != nil {
		return 0, fmt.Errorf("python: %w", err)
	}
	var found int
	var milliseconds float64
	if _, err := fmt.Sscan(string(out), &found, &milliseconds); err != nil || found == 0 {
		return 0, fmt.Errorf("python prints %q: %w", out, err)
	}
	return milliseconds, nil
}
