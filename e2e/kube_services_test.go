package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The examples of the documentation page that need no GPU run on a cluster, unchanged but for the names by which they run side by side.
func TestCluster_SeedExamples(t *testing.T) {
	s := newClusterSet(t)
	s.runCLI("offer").expectExit(0).expectText("kubernetes", "k1", "k2")
	for _, name := range []string{"python", "plain", "auth", "image"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := s.withT(t)
			dir := h.newFolder(readSeedExample(t, name))
			h.writeFile(filepath.Join(dir, "notes.txt"), "what a page says")
			h.applyAndWait(dir, "-n", name)
			h.expectStatus(h.serviceURL(name, "/"), 200, "Directory listing", "notes.txt")
			h.expectStatus(h.servicePathURL(name, "/notes.txt"), 200, "what a page says")
			h.expectResponse("GET", h.serviceURL(name, "/service.dstack.yml"), h.token, "", 404)
			if name == "auth" {
				h.expectResponse("GET", h.serviceURL(name, "/"), "", "", 200)
			} else {
				h.expectUnauthorized(h.serviceURL(name, "/"))
			}
			if name == "python" {
				h.runCLI("exec", name, "--", "sh", "-c", "echo of $DSTACK_RUN_NAME; exit 3").expectExit(3).expectText("of python")
				h.waitUntil(10*time.Second, "the log has the requests", func() error {
					if out := h.runCLI("logs", name).expectExit(0).out; !strings.Contains(out, "GET /notes.txt") {
						return fmt.Errorf("the log is %s", out)
					}
					return nil
				})
			}
			h.stopRun(name)
		})
	}
}

// Load scales a service from zero replicas to four and back to one, on both nodes, and an update replaces them; no request fails and no
// stream is cut.
func TestCluster_ScaleAndUpdate(t *testing.T) {
	s := newClusterSet(t)
	config := s.serviceConfig("busy", 1, "env: [VERSION=0]", fastScaling("concurrency", 2), "drain_timeout: 15s")
	config = strings.Replace(config, "replicas: 1", "replicas: 0..4", 1)
	dir := s.newFolder(config)
	s.applySleeping(dir)
	many := s.startTraffic(16, s.serviceURL("busy", "/slow?ms=500"))
	s.waitForReady(time.Minute, "busy", 4)
	if count := s.countByNode(); count["k1"] != 2 || count["k2"] != 2 {
		t.Errorf("four replicas are on these nodes: %v", count)
	}
	streams := s.startStreams("busy", 20, 100, 200*time.Millisecond)
	s.waitUntil(time.Minute, "streams have started", func() error { return streams.checkStarted(8) })
	s.applyChange(dir, setVersion(config, 0, 1))
	if r := s.measureRequest("GET", s.serviceURL("busy", "/who"), nil); r.err != nil || r.version != "1" {
		t.Errorf("after the update a response is of version %q: %v", r.version, r.err)
	}
	streams.expectComplete("streams during the update")
	many.expectNoFailure("requests during the update")
	few := s.startTraffic(1, s.serviceURL("busy", "/slow?ms=100"))
	s.waitForReady(time.Minute, "busy", 1)
	few.expectNoFailure("requests while replicas leave")
	s.waitUntil(30*time.Second, "one pod is left", func() error {
		if count := s.countByNode(); count["k1"]+count["k2"] != 1 {
			return fmt.Errorf("%v", count)
		}
		return nil
	})
}

// waitForReady waits until a run has exactly as many replicas, all ready.
func (s *clusterSet) waitForReady(limit time.Duration, run string, ready int) {
	s.t.Helper()
	s.waitUntil(limit, fmt.Sprintf("%s has exactly %d replicas, all ready", run, ready), func() error {
		if v := s.fetchRun(run); v.Ready != ready || v.DesiredReplicas != ready {
			return fmt.Errorf("the run is %s, %d replicas are desired, %d ready: %s", v.Status, v.DesiredReplicas, v.Ready, formatReplicas(v))
		}
		return nil
	})
}

// An image of a private registry is pulled with the right password; with a wrong one, the failure names image and field, not the password.
func TestCluster_PrivateRegistry(t *testing.T) {
	s := newClusterSet(t)
	registry, path, user, password := s.pushImage("/private/cluster:1")
	address := s.proxyTo(s.cluster.Network(t), registry)
	s.cluster.Control(t, "registry", address, "http://"+address)
	with := func(name, password string) string {
		config := strings.Replace(s.serviceConfig(name, 1, "registry_auth: {username: "+user+", password: "+password+"}"),
			"local/busybox:1", address+path, 1)
		return s.newFolder(config)
	}
	refused := s.runCLIIn(with("refused", "wrong-password"), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	refused.expectError(1, address+path, "registry_auth")
	refused.expectNoText("wrong-password")
	s.applyAndWait(with("pulled", password))
	s.expectStatus(s.serviceURL("pulled", "/who"), 200)
}
