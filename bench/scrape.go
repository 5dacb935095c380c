package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	scrapeCount = 20
	scrapeGoal  = 20 // ms
)

// measureScrape measures what a scrape of the metrics of 1000 services costs a gateway process, after each has been called.
func (b *benchmark) measureScrape() (err error) {
	m, err := b.newManyRoutes()
	if m != nil {
		defer func() { err = cmp.Or(err, m.close()) }()
	}
	if err != nil {
		return err
	}
	if err := m.gateway.stop(); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	m.gateway.cmd.Args = append(m.gateway.cmd.Args, "--metrics", address)
	if m.gateway, _, err = m.gateway.startAgain(); err != nil {
		return err
	}
	conn, err := openGatewayConnection(m.gateway.port)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	for service := range routeServices {
		if _, err := conn.get(service); err != nil {
			return fmt.Errorf("web-%d: %w", service, err)
		}
	}
	for _, encoding := range []string{"identity", "gzip"} {
		if err := reportScrapes(m.gateway, address, encoding); err != nil {
			return err
		}
	}
	return nil
}

// reportScrapes prints the time and the CPU of scrapes.
func reportScrapes(g gatewayProcess, address, encoding string) error {
	var took, cpu []float64
	size, lines := 0, 0
	for round := range scrapeCount + 1 {
		before, began := readCPUClock(g.cmd.Process.Pid), time.Now()
		text, err := readExposition("http://"+address+"/metrics", encoding)
		if err != nil {
			return err
		}
		if round == 0 {
			continue // it warms up
		}
		took = append(took, toMilliseconds(time.Since(began)))
		cpu = append(cpu, toMilliseconds(readCPUClock(g.cmd.Process.Pid)-before))
		size, lines = len(text), strings.Count(text, "\n")
	}
	fmt.Printf("a scrape of %d services, %s: %d KiB", routeServices, encoding, size/1024)
	if lines > 0 && encoding == "identity" {
		fmt.Printf(", %d lines", lines)
	}
	fmt.Printf(", median %.1f ms, %.1f ms of CPU; 99th percentile %.1f ms\n", median(took), median(cpu), percentile99(took))
	printMaximumGoal("a scrape of 1000 services, "+encoding, median(took), scrapeGoal, "ms")
	return nil
}

// readExposition reads the metrics as they are sent, also where they are compressed.
func readExposition(url, encoding string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept-Encoding", encoding)
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return string(text), err
}
