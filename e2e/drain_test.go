package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// TestStopDuringStreams scales a run down, and then stops it, during streams. Every
// stream is completed, and the stop does not wait longer than for the streams.
func TestStopDuringStreams(t *testing.T) {
	h := newParallelHarness(t, "docker")
	n, drain := 20, 20 // streams of four seconds
	if isLongRun() {
		n, drain = 300, 120
	}
	config := h.workloadConfig("ends", "replicas: 3", fmt.Sprintf("drain_timeout: %ds", drain))
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	streams := h.startStreams("ends", n, 200, 300*time.Millisecond)
	requests := h.startTraffic(10, h.serviceURL("ends", "/who"))
	h.waitForInstances("ends", 3)
	h.applyChange(dir, strings.Replace(config, "replicas: 3", "replicas: 1", 1))
	h.waitForReplicas(time.Duration(drain)*time.Second, "ends", 1)
	streams.expectComplete("streams during the scale-down")
	requests.expectNoFailure("requests during the scale-down")

	var last []*eventStream
	for range 4 {
		last = append(last, h.openStream(t.Context(), "ends", n, 200))
	}
	start := time.Now()
	h.stopRun("ends")
	took := time.Since(start)
	expectCompleteStreams(h, "streams during the stop", last)
	streamTime := time.Duration(n) * 200 * time.Millisecond
	t.Logf("the stop took %s, with streams of %s", took.Round(time.Millisecond), streamTime)
	if took > streamTime+5*time.Second {
		t.Errorf("the stop took %s, with streams of %s", took, streamTime)
	}
	h.expectEvent("ends", dstack.EventReplica, "draining", "terminating")
}

// TestDrainTimeout checks that streams are cut after the drain timeout, and not
// before, and that a replica that ignores SIGTERM is killed.
func TestDrainTimeout(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("endless", "drain_timeout: 3s", "- IGNORE_TERM=1")))
		s := h.openStream(t.Context(), "endless", 1000, 100)
		if s.err != nil {
			t.Fatal(s.err)
		}
		start := time.Now()
		h.stopRun("endless")
		took := time.Since(start)
		<-s.done
		t.Logf("the stream was cut after %s, and the stop took %s", s.endedAt.Sub(start).Round(time.Millisecond), took.Round(time.Millisecond))
		if cut := s.endedAt.Sub(start); cut < 3*time.Second {
			t.Errorf("the stream was cut after %s, want 3s or more", cut)
		}
		if took < 12*time.Second || took > 20*time.Second { // 3s of drain and 10s after SIGTERM
			t.Errorf("the stop took %s, want 13s or a little more", took)
		}
		h.waitUntil(5*time.Second, "nothing is left", h.checkNothingLeft)
		h.runCLI("logs", "endless").expectExit(0).expectText("workload: asked to stop")
	})
}

// TestAbort checks that an aborted run ends at once.
func TestAbort(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("aborted", "drain_timeout: 60s", "- IGNORE_TERM=1")))
	s := h.openStream(t.Context(), "aborted", 1000, 100)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.newCommand(h.home, "stop", "aborted", "-y").Run()
	}()
	h.waitUntil(20*time.Second, "the replica drains", func() error { return h.checkReplicaStatus("aborted", 0, dstack.ReplicaDraining) })
	start := time.Now()
	h.runCLI("stop", "aborted", "-y", "--abort").expectExit(0)
	h.waitUntil(5*time.Second, "nothing is left", h.checkNothingLeft)
	<-s.done
	<-stop
	if took, v := time.Since(start), h.findRun("aborted"); took > 8*time.Second || v.Status != api.StatusStopped {
		t.Errorf("the abort took %s, and the run is %s", took, v.Status)
	}
}

// TestScaleDownRemovesIdleReplica checks that a scale-down removes the one of three
// replicas that has no stream.
func TestScaleDownRemovesIdleReplica(t *testing.T) {
	h := newParallelHarness(t, "docker")
	config := h.workloadConfig("idle", "replicas: 3", "drain_timeout: 30s")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	all := h.waitForInstances("idle", 3)
	newest := h.openStreamOn("idle", h.findReplicaContainer("idle", 2), all)
	second := h.openStreamOn("idle", h.findReplicaContainer("idle", 0), all)
	idle := h.findReplicaContainer("idle", 1)
	since := time.Now()
	h.waitUntil(10*time.Second, "the load report has both streams", func() error {
		if load := h.explainRun("idle").Load; load.InFlight != 2 || time.Since(since) < 1500*time.Millisecond { // the gateway reports each second
			return fmt.Errorf("the load is %+v", load)
		}
		return nil
	})
	start := time.Now()
	h.applyChange(dir, strings.Replace(config, "replicas: 3", "replicas: 2", 1))
	h.waitUntil(10*time.Second, "the idle container is gone", func() error {
		if now := h.listContainerNames(); slices.Contains(now, idle) {
			return fmt.Errorf("the containers are %v: %s", now, formatReplicas(h.fetchRun("idle")))
		}
		return nil
	})
	t.Logf("the idle replica ended after %s", time.Since(start).Round(time.Millisecond))
	if err := h.checkReplicaCount(2); err != nil {
		t.Error(err)
	}
	expectCompleteStreams(h, "streams on the other replicas", []*eventStream{newest, second})
	h.waitForReplicas(5*time.Second, "idle", 2)
}

// findReplicaContainer returns the name of the container of a replica's present
// attempt.
func (h *harness) findReplicaContainer(run string, num int) string {
	h.t.Helper()
	attempt := string(findReplica(h.fetchRun(run), num).SubmissionID)
	name := runDocker(h.t, "ps", "-q", "--no-trunc", "--filter", "label=dstack.attempt="+attempt)
	if name == "" {
		h.t.Fatalf("replica %d of %s has no container: %s", num, run, formatReplicas(h.fetchRun(run)))
	}
	return runDocker(h.t, "inspect", "-f", "{{slice .Name 1}}", name)
}

// openStreamOn opens a stream of 15 seconds to a given container. It closes streams
// that reach other containers.
func (h *harness) openStreamOn(run, container string, all []string) *eventStream {
	h.t.Helper()
	for range 10 * len(all) {
		ctx, cancel := context.WithCancel(h.t.Context())
		s := h.openStream(ctx, run, 75, 200)
		if s.err == nil && h.findContainer(s.instance) == container {
			h.t.Cleanup(cancel)
			return s
		}
		defer cancel() // later: a busy replica makes the next stream go to another one
	}
	h.t.Fatalf("no stream reached %s", container)
	return nil
}

// TestDrainingRefusesRequests checks that a run that stops refuses new requests.
func TestDrainingRefusesRequests(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("leaves", "drain_timeout: 20s")))
	s := h.openStream(t.Context(), "leaves", 25, 200)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.newCommand(h.home, "stop", "leaves", "-y").Run()
	}()
	h.waitUntil(5*time.Second, "the replica drains", func() error { return h.checkReplicaStatus("leaves", 0, dstack.ReplicaDraining) })
	if v := h.fetchRun("leaves"); v.Status != api.StatusStopping {
		t.Errorf("the run is %s, want stopping", v.Status)
	}
	h.waitUntil(time.Second, "the run refuses new requests", func() error {
		a, err := h.sendRequest("GET", h.serviceURL("leaves", "/who"), h.token, "")
		if err == nil && a.status != 404 && a.status != 503 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	expectCompleteStreams(h, "the stream", []*eventStream{s})
	<-stop
	if v := h.findRun("leaves"); v.Status != api.StatusStopped {
		t.Errorf("the run is %s", v.Status)
	}
}
