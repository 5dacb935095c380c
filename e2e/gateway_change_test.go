package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The domain of a live gateway changes twice, and its certificate is taken away and comes back. Names that were served go on
// being served by the server and by a process that joined, which also starts again meanwhile: no request fails.
func TestGateway_ChangesInPlace(t *testing.T) {
	runParallel(t)
	s := newPublishedSite(t)
	s.applyAndWait(s.newFolder(s.workloadConfig("web")))
	joined := s.newGatewayHost("joined")
	joined.start("--server", s.serverURL(), "--token", s.newGatewayToken("edge"))
	hosts := []*gatewayHost{{h: s.harness, dir: "the server", httpsPort: s.https}, joined}
	apply := func(domain, certificate string) {
		dir := s.newFolderWith("gateway.dstack.yml", "type: gateway\nname: edge\nbackend: local\ndomain: "+domain+"\ncertificate: "+certificate+"\n")
		s.runCLIIn(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0)
	}
	var stops []func() string
	call := func(name string) {
		for _, g := range hosts {
			g.waitForStatus(name, s.token, http.StatusOK)
			stops = append(stops, g.startRequests(name, s.token))
		}
	}
	call("web.example.test")
	s.runCLI("gateway", "update", "edge", "--domain", "first.test").expectExit(0)
	call("web.first.test")
	apply("second.test", "{type: internal}")
	call("web.second.test")
	apply("second.test", "null")
	s.waitUntil(10*time.Second, "it is served over http", func() error {
		if res, body := s.fetch("GET", fmt.Sprintf("http://web.second.test:%d/", s.http), "", "Authorization: Bearer "+s.token); res.StatusCode != 200 {
			return fmt.Errorf("%d %s", res.StatusCode, body)
		}
		return nil
	})
	lines := regexp.MustCompile(`also +(\S+) until \d\d:\d\d\n`).FindAllStringSubmatch(s.runCLI("gateway", "get", "edge").expectExit(0).out, -1)
	if got := fmt.Sprint(lines); len(lines) != 3 || lines[0][1] != "https://<run>.second.test" || lines[1][1] != "first.test" || lines[2][1] != "example.test" {
		t.Errorf("it says %s", got)
	}
	apply("second.test", "{type: internal}")
	for _, stop := range stops {
		if failed := stop(); failed != "" {
			t.Error(failed)
		}
	}
	s.killServer()
	joined.end(syscall.SIGKILL)
	joined.start()
	joined.waitForStatus("web.example.test", s.token, http.StatusOK)
	s.startServer()
	for _, g := range hosts {
		for _, name := range []string{"web.example.test", "web.first.test", "web.second.test"} {
			g.waitForStatus(name, s.token, http.StatusOK)
		}
	}
	s.runCLI("gateway", "create", "other", "--backend", "external", "--domain", "example.test", "--certificate", "internal").expectExit(0)
	for _, g := range hosts {
		s.waitUntil(10*time.Second, "a domain that another gateway took is not served", func() error {
			if status, _, err := g.get("web.example.test", "/who", s.token); err == nil && status == http.StatusOK {
				return fmt.Errorf("%s serves it", g.dir)
			}
			return nil
		})
	}
}

// startRequests sends requests over https, each on a connection of its own, until stop is called, which returns what failed.
func (g *gatewayHost) startRequests(name, token string) (stop func() (failed string)) {
	ctx, cancel := context.WithCancel(g.h.t.Context())
	result := make(chan string, 1)
	go func() {
		sent, failures := 0, []string{}
		for ; ctx.Err() == nil; sent++ {
			status, body, err := g.get(name, "/who", token)
			if err != nil || status != http.StatusOK {
				failures = append(failures, fmt.Sprintf("request %d: status %d, %v %s", sent, status, err, body))
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		if len(failures) > 0 {
			result <- fmt.Sprintf("%d of %d requests for %s at %s failed; the first: %s", len(failures), sent, name, g.dir, strings.Join(failures[:1], ""))
		}
		close(result)
	}()
	return func() string { cancel(); return <-result }
}
