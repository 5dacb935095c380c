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
	h.waitUntil(20*time.Second, "there is traffic", func() error {
		if n := len(requests.resultsSoFar()); n < 20 {
			return fmt.Errorf("%d requests were answered", n)
		}
		return nil
	})
	freezeContainer(t, victim)
	at := time.Now()
	h.waitUntil(time.Minute, "it was restarted, and all three are ready", func() error {
		v := h.fetchRun("frozen")
		restarts := 0
		for _, r := range v.Replicas {
			restarts += r.Restarts
		}
		if v.Ready != 3 || restarts != 1 {
			return fmt.Errorf("%d are ready, with %d restarts: %s", v.Ready, restarts, formatReplicas(v))
		}
		return nil
	})
	t.Logf("it was restarted after %s", time.Since(at).Round(time.Millisecond))
	if slices.Contains(h.listContainerNames(), victim) {
		t.Errorf("the container %s is still there", victim)
	}
	last, hung := time.Time{}, 0 // who began last of those that it got
	for _, s := range requests.expectNoFailure("requests") {
		if s.startedAt.After(at) && s.duration() > 900*time.Millisecond {
			hung++
			last = slices.MaxFunc([]time.Time{last, s.startedAt}, time.Time.Compare)
		}
	}
	t.Logf("%d requests went to it, the last one %s after it froze", hung, last.Sub(at).Round(time.Millisecond))
	if late := last.Sub(at); late > 2500*time.Millisecond { // two intervals, and a busy machine
		t.Errorf("requests went to it for %s", late)
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
// and those that can be repeated must not fail.
func TestKilledReplica(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("killed", "replicas: 3", probesConfig)))
	victim := h.findContainer(h.waitForInstances("killed", 3)[1])
	requests := h.startTraffic(30, h.serviceURL("killed", "/slow?ms=200"))
	h.waitUntil(20*time.Second, "there is traffic", func() error {
		if n := len(requests.resultsSoFar()); n < 30 {
			return fmt.Errorf("%d requests were answered", n)
		}
		return nil
	})
	began := time.Now()
	runDocker(t, "kill", victim)
	killed := time.Now()
	h.waitForReplicas(time.Minute, "killed", 3)
	all := requests.finish()
	inFlight := 0
	for _, s := range all {
		if s.startedAt.Before(killed) && s.endedAt.After(began) {
			inFlight++
		}
	}
	bad := filterFailed(all)
	t.Logf("%d of %d requests failed; %d were in flight, on three replicas", len(bad), len(all), inFlight)
	for _, s := range bad {
		if !s.startedAt.Before(killed) || len(bad) > inFlight {
			t.Errorf("a request failed, begun %s after the replica ended: %v", s.startedAt.Sub(killed), s.err)
		}
	}
	if len(bad) > 0 { // GETs whose answer had not begun go on to another one
		t.Errorf("%d requests failed that could have been repeated: %v", len(bad), bad[0].err)
	}
}

// TestAllReplicasUnhealthy checks that requests still reach the replicas if all of
// them fail their probes, because then the probes are as likely to be wrong.
func TestAllReplicasUnhealthy(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("sick", "replicas: 2", probesConfig)))
	requests := h.startTraffic(10, h.serviceURL("sick", "/who"))
	before := h.listContainerNames()
	h.waitUntil(30*time.Second, "both are sick", func() error {
		if s := h.measureRequest("POST", h.serviceURL("sick", "/sick"), nil); s.err != nil {
			return s.err
		}
		if v := h.fetchRun("sick"); v.Ready != 0 {
			return fmt.Errorf("%d are ready: %s", v.Ready, formatReplicas(v))
		}
		return nil
	})
	for range 20 { // nothing is restarted: that would make it worse
		if s := h.measureRequest("GET", h.serviceURL("sick", "/slow?ms=200"), nil); s.err != nil {
			t.Errorf("all are sick, and %v", s.err)
		}
	}
	h.runCLI("ps", "-v").expectExit(0).expectText("500")
	if now := h.listContainerNames(); !slices.Equal(before, now) {
		t.Errorf("the containers %v became %v", before, now)
	}
	h.waitUntil(30*time.Second, "they are well again", func() error {
		if s := h.measureRequest("POST", h.serviceURL("sick", "/well"), nil); s.err != nil {
			return s.err
		}
		if v := h.fetchRun("sick"); v.Ready != 2 {
			return fmt.Errorf("%d are ready: %s", v.Ready, formatReplicas(v))
		}
		return nil
	})
	requests.expectNoFailure("requests")
}
