package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
)

const probesConfig = "probes: [{type: http, url: /health, timeout: 1s, interval: 1s}]"

// TestFrozenReplica checks that a replica that accepts connections and does not
// answer gets no requests after two probe intervals, and is restarted after its
// third failed probe.
func TestFrozenReplica(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("frozen", "replicas: 3", probesConfig)))
	victim := h.findContainer(h.waitForInstances("frozen", 3)[1])
	requests := h.startTraffic(20, h.serviceURL("frozen", "/who"))
	h.waitUntil(20*time.Second, "there are requests", func() error {
		if n := len(requests.resultsSoFar()); n < 20 {
			return fmt.Errorf("%d requests have a response", n)
		}
		return nil
	})
	freezeContainer(t, victim)
	at := time.Now()
	h.waitUntil(time.Minute, "the replica was restarted, and all three are ready", func() error {
		v := h.fetchRun("frozen")
		restarts := 0
		for _, r := range v.Replicas {
			restarts += r.Restarts
		}
		if v.Ready != 3 || restarts != 1 {
			return fmt.Errorf("%d replicas are ready, with %d restarts: %s", v.Ready, restarts, formatReplicas(v))
		}
		return nil
	})
	t.Logf("the replica was restarted after %s", time.Since(at).Round(time.Millisecond))
	if slices.Contains(h.listContainerNames(), victim) {
		t.Errorf("the container %s still exists", victim)
	}
	last, hung := time.Time{}, 0 // last: the start of the last request that reached it
	for _, s := range requests.expectNoFailure("requests") {
		if s.startedAt.After(at) && s.duration() > 900*time.Millisecond {
			hung++
			last = slices.MaxFunc([]time.Time{last, s.startedAt}, time.Time.Compare)
		}
	}
	t.Logf("%d requests reached the frozen replica, the last one %s after it froze", hung, last.Sub(at).Round(time.Millisecond))
	if late := last.Sub(at); late > 2500*time.Millisecond { // two intervals, and time for a busy machine
		t.Errorf("requests reached the frozen replica for %s", late)
	}
	h.expectEvent("frozen", dstack.EventReplica, "ready", "unhealthy", "/health")
	h.expectEvent("frozen", dstack.EventReplica, "unhealthy", "restarting", "3 times in a row")
}

// freezeContainer stops all processes of a container with SIGSTOP. Its port still
// accepts connections.
func freezeContainer(t *testing.T, container string) {
	t.Helper()
	lines := strings.Split(runDocker(t, "top", container, "-o", "pid"), "\n")
	for _, line := range lines[1:] {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledReplica kills a replica under load. Only requests in flight may fail,
// and repeatable requests must not.
func TestKilledReplica(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("killed", "replicas: 3", probesConfig)))
	victim := h.findContainer(h.waitForInstances("killed", 3)[1])
	requests := h.startTraffic(30, h.serviceURL("killed", "/slow?ms=200"))
	h.waitUntil(20*time.Second, "there are requests", func() error {
		if n := len(requests.resultsSoFar()); n < 30 {
			return fmt.Errorf("%d requests have a response", n)
		}
		return nil
	})
	start := time.Now()
	runDocker(t, "kill", victim)
	killed := time.Now()
	h.waitForReplicas(time.Minute, "killed", 3)
	all := requests.finish()
	inFlight := 0
	for _, s := range all {
		if s.startedAt.Before(killed) && s.endedAt.After(start) {
			inFlight++
		}
	}
	bad := filterFailed(all)
	t.Logf("%d of %d requests failed; %d were in flight on three replicas", len(bad), len(all), inFlight)
	for _, s := range bad {
		if !s.startedAt.Before(killed) || len(bad) > inFlight {
			t.Errorf("a request failed that was sent %s after the replica was killed: %v", s.startedAt.Sub(killed), s.err)
		}
	}
	if len(bad) > 0 { // the gateway repeats GETs whose response has not begun
		t.Errorf("%d requests failed that can be repeated: %v", len(bad), bad[0].err)
	}
}

// TestAllReplicasUnhealthy checks that requests still reach the replicas if all of
// them fail their probes, because then the probes are as likely to be wrong.
func TestAllReplicasUnhealthy(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("sick", "replicas: 2", probesConfig)))
	requests := h.startTraffic(10, h.serviceURL("sick", "/who"))
	before := h.listContainerNames()
	h.waitUntil(30*time.Second, "both replicas are unhealthy", func() error {
		if s := h.measureRequest("POST", h.serviceURL("sick", "/sick"), nil); s.err != nil {
			return s.err
		}
		if v := h.fetchRun("sick"); v.Ready != 0 {
			return fmt.Errorf("%d replicas are ready: %s", v.Ready, formatReplicas(v))
		}
		return nil
	})
	for range 20 { // meanwhile no replica may be restarted
		if s := h.measureRequest("GET", h.serviceURL("sick", "/slow?ms=200"), nil); s.err != nil {
			t.Errorf("a request while all are unhealthy: %v", s.err)
		}
	}
	h.runCLI("ps", "-v").expectExit(0).expectText("500")
	if now := h.listContainerNames(); !slices.Equal(before, now) {
		t.Errorf("the containers were %v and are %v", before, now)
	}
	h.waitUntil(30*time.Second, "both replicas are ready again", func() error {
		if s := h.measureRequest("POST", h.serviceURL("sick", "/well"), nil); s.err != nil {
			return s.err
		}
		if v := h.fetchRun("sick"); v.Ready != 2 {
			return fmt.Errorf("%d replicas are ready: %s", v.Ready, formatReplicas(v))
		}
		return nil
	})
	requests.expectNoFailure("requests")
}
