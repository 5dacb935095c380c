package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// fastScaling returns a scaling configuration with short delays.
func fastScaling(metric string, target float64) string {
	return fmt.Sprintf("scaling: {metric: %s, target: %g, scale_up_delay: 1s, scale_down_delay: 3s, window: 5s}", metric, target)
}

// TestAutoscaling checks that load scales a run from one replica to four and back,
// and that no request fails.
func TestAutoscaling(t *testing.T) {
	h := newParallelHarness(t, "docker")
	h.applyAndWait(h.newFolder(h.workloadConfig("scales", "replicas: 1..4", fastScaling("rps", 4), "drain_timeout: 5s")))
	few := h.startTraffic(1, h.serviceURL("scales", "/who"))
	many := h.startTraffic(14, h.serviceURL("scales", "/slow?ms=100"))
	h.waitForReplicas(time.Minute, "scales", 4)
	e := h.explainRun("scales")
	if e.DesiredReplicas != 4 || e.Ready != 4 || e.Min != 1 || e.Max != 4 || e.Scaling == nil || e.Decision.Target != 4 ||
		!e.Load.Known || e.Load.RPS < 10 || !strings.Contains(e.Decision.Reason, "requests a second over the last 5s, target 4") {
		t.Errorf("at four replicas the explanation is %+v, with the scaling %+v", e, e.Scaling)
	}
	h.runCLI("explain", "scales").expectExit(0).expectText(e.Decision.Reason)
	h.waitForInstances("scales", 4) // all get requests
	many.expectNoFailure("requests during the scale-up")
	h.waitForReplicas(time.Minute, "scales", 1)
	few.expectNoFailure("requests during all changes")

	h.expectEvent("scales", dstack.EventScaled, "", "4", "requests a second", "target 4")
	h.expectEvent("scales", dstack.EventScaled, "", "1", "a second over the last 5s", "down from")
	h.expectEvent("scales", dstack.EventReplica, "ready", "draining", "scaled down")
	if v := h.findRun("scales"); v.Revision != 1 || v.Replicas[0].Restarts != 0 {
		t.Errorf("scaling caused revision %d and %d restarts", v.Revision, v.Replicas[0].Restarts)
	}
}

// TestScaleToZero checks that a service with a minimum of zero replicas sleeps
// without requests, and that a request wakes it and waits for the first replica.
func TestScaleToZero(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		maxReplicas := 1 // processes share the port
		if engine == "docker" {
			maxReplicas = 3
		}
		dir := h.newFolder(h.workloadConfig("sleeps", fmt.Sprintf("replicas: 0..%d", maxReplicas), fastScaling("concurrency", 2), "- LISTEN_AFTER=500"))
		h.applySleeping(dir)

		for range 2 {
			woken := h.startTraffic(0.001, h.serviceURL("sleeps", "/slow?ms=200")) // a single request
			h.waitUntil(20*time.Second, "a request wakes the service", func() error {
				if v := h.fetchRun("sleeps"); v.Ready != 1 {
					return fmt.Errorf("the run is %s: %s", v.Status, formatReplicas(v))
				}
				return nil
			})
			// Sooner is impossible, because the workload does not listen yet. Later means
			// that a loop was not woken and waited for its next interval.
			if took := woken.expectNoFailure("the first request")[0].duration(); took < 500*time.Millisecond || took > 4*time.Second {
				t.Errorf("the first response took %s:\n%s", took, formatEvents(h.listEvents("sleeps")))
			}
			busy := h.startTraffic(10, h.serviceURL("sleeps", "/slow?ms=800")) // eight at the same time: too many for three replicas
			h.waitForReplicas(time.Minute, "sleeps", maxReplicas)
			busy.expectNoFailure("requests to the awake service")
			h.waitUntilAsleep("sleeps")
		}
		h.expectEvent("sleeps", dstack.EventScaled, "0", "1", "scaling up from zero has no delay")
		h.expectEvent("sleeps", dstack.EventScaled, "", "0", "down from")
		h.runCLI("stop", "sleeps", "-y").expectExit(0) // while it sleeps
		if v := h.findRun("sleeps"); v.Status != api.StatusStopped {
			t.Errorf("the run is %s after dstack stop", v.Status)
		}
	})
}

// applySleeping applies a service with a minimum of zero replicas, and checks that
// it sleeps at once.
func (h *harness) applySleeping(dir string) {
	h.t.Helper()
	start := time.Now()
	r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "-o", "json").expectExit(0)
	var v api.RunView
	r.decode(&v)
	if took := time.Since(start); v.Status != api.StatusSleeping || v.DesiredReplicas != 0 || took > 5*time.Second {
		h.t.Errorf("the run is %s with %d desired replicas after %s, want sleeping at once", v.Status, v.DesiredReplicas, took)
	}
	if err := h.checkNothingLeft(); err != nil {
		h.t.Errorf("the service sleeps, but %v", err)
	}
	h.runCLI("ps").expectExit(0).expectText("sleeping")
}

// waitUntilAsleep waits until a service sleeps and nothing of it runs.
func (h *harness) waitUntilAsleep(run string) {
	h.t.Helper()
	h.waitUntil(time.Minute, run+" sleeps", func() error {
		if v := h.fetchRun(run); v.Status != api.StatusSleeping {
			return fmt.Errorf("the run is %s, %d replicas are desired: %s", v.Status, v.DesiredReplicas, formatReplicas(v))
		}
		return h.checkNothingLeft()
	})
}

// TestUnauthorizedRequestsDoNotWake checks that requests without a token do not wake
// a service.
func TestUnauthorizedRequestsDoNotWake(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applySleeping(h.newFolder(h.workloadConfig("private", "replicas: 0..1", fastScaling("rps", 1))))
	for range 3 {
		h.expectUnauthorized(h.serviceURL("private", "/"))
	}
	h.expectStatus(h.serverURL()+"/healthcheck", 200)
	if v := h.fetchRun("private"); v.Status != api.StatusSleeping {
		t.Errorf("requests without a token woke the service: it is %s", v.Status)
	}
	for _, e := range h.listEvents("private") {
		if e.Kind == dstack.EventScaled {
			t.Errorf("requests without a token scaled the service: %s", formatEvents([]api.EventView{e}))
		}
	}
	h.expectStatus(h.serviceURL("private", "/"), 200)
}
