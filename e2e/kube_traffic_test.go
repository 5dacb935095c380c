package e2e

import (
	"strings"
	"testing"
	"time"
)

// Through the API server, an update under new connections, kept ones and streams cuts and loses nothing, although the containers exit
// as soon as they are asked to (rule 10). The server has no other way to the pods.
func TestCluster_UpdateThroughTheAPIServer(t *testing.T) {
	s := newClusterSet(t, "network: port-forward")
	if out := s.log.String(); !strings.Contains(out, "pods reached through its API server") {
		t.Errorf("the start message does not say how pods are reached: %s", out)
	}
	config := s.serviceConfig("rolls", 2, "env: [VERSION=0]", "drain_timeout: 15s")
	dir := s.newFolder(config)
	s.applyAndWait(dir)
	s.expectWebSocket(s.serviceURL("rolls", "/socket"))
	requests := s.startTraffic(20, s.serviceURL("rolls", "/who"))
	streams := s.startStreams("rolls", 25, 200, 250*time.Millisecond)
	s.waitUntil(time.Minute, "streams have started", func() error { return streams.checkStarted(8) })
	s.applyChange(dir, setVersion(config, 0, 1))
	if r := s.measureRequest("GET", s.serviceURL("rolls", "/who"), nil); r.err != nil || r.version != "1" {
		t.Errorf("after the update a response is of version %q: %v", r.version, r.err)
	}
	requests.expectNoFailure("requests during the update")
	old := 0
	for _, stream := range streams.expectComplete("streams during the update") {
		if stream.version == "0" {
			old++
		}
	}
	if old == 0 {
		t.Error("no stream was open while its replica was replaced")
	}
}
