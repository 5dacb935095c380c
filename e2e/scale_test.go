package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// quick is scaling with delays that a test can wait for.
func quick(metric string, target float64) string {
	return fmt.Sprintf("scaling: {metric: %s, target: %g, scale_up_delay: 1s, scale_down_delay: 3s, window: 5s}", metric, target)
}

// TestScalesByLoad: one replica becomes four and one again by nothing but
// requests, and none of them fails.
func TestScalesByLoad(t *testing.T) {
	h := needEngine(t, "docker")
	h.apply(h.folder(h.workload("scales", "replicas: 1..4", quick("rps", 4), "drain_timeout: 5s")))
	few := h.asks(1, h.service("scales", "/who"))
	many := h.asks(14, h.service("scales", "/slow?ms=100"))
	h.reaches(time.Minute, "scales", 4)
	e := h.explained("scales")
	if e.DesiredReplicas != 4 || e.Ready != 4 || e.Min != 1 || e.Max != 4 || e.Scaling == nil || e.Decision.Target != 4 ||
		!e.Load.Known || e.Load.RPS < 10 || !strings.Contains(e.Decision.Reason, "requests a second over the last 5s, target 4") {
		t.Errorf("at four replicas the explanation is %+v, with the scaling %+v", e, e.Scaling)
	}
	h.cli("explain", "scales").exits(0).says(e.Decision.Reason)
	h.instances("scales", 4) // they share the load
	many.endsWell("on the way up")
	h.reaches(time.Minute, "scales", 1)
	few.endsWell("all the time")

	h.tells("scales", dstack.EventScaled, "", "4", "requests a second", "target 4")
	h.tells("scales", dstack.EventScaled, "", "1", "a second over the last 5s", "down from")
	h.tells("scales", dstack.EventReplica, "ready", "draining", "scaled down")
	if v := h.run("scales"); v.Revision != 1 || v.Replicas[0].Restarts != 0 {
		t.Errorf("scaling made revision %d, with %d restarts", v.Revision, v.Replicas[0].Restarts)
	}
}

// TestSleeps: a service that may have no replica has none until a request
// comes, which waits for the first, and has none again when no more come.
func TestSleeps(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		most := 1 // processes share the port
		if engine == "docker" {
			most = 3
		}
		dir := h.folder(h.workload("sleeps", fmt.Sprintf("replicas: 0..%d", most), quick("concurrency", 2), "- LISTEN_AFTER=500"))
		h.fallsAsleep(dir)

		for range 2 {
			woken := h.asks(0.001, h.service("sleeps", "/slow?ms=200")) // just one
			h.eventually(20*time.Second, "a request wakes it", func() error {
				if v := h.look("sleeps"); v.Ready != 1 {
					return fmt.Errorf("it is %s: %s", v.Status, replicasOf(v))
				}
				return nil
			})
			// Before that nothing listens; later than that, something waited for its
			// next look instead of being woken.
			if took := woken.endsWell("the one that woke it")[0].took(); took < 500*time.Millisecond || took > 4*time.Second {
				t.Errorf("it was answered after %s:\n%s", took, told(h.happened("sleeps")))
			}
			busy := h.asks(10, h.service("sleeps", "/slow?ms=800")) // eight at once: too much for three
			h.reaches(time.Minute, "sleeps", most)
			busy.endsWell("when it was awake")
			h.asleep("sleeps")
		}
		h.tells("sleeps", dstack.EventScaled, "0", "1", "scaling up from zero has no delay")
		h.tells("sleeps", dstack.EventScaled, "", "0", "down from")
		h.cli("stop", "sleeps", "-y").exits(0) // in its sleep
		if v := h.run("sleeps"); v.Status != api.StatusStopped {
			t.Errorf("it is %s after dstack stop", v.Status)
		}
	})
}

// fallsAsleep applies a service that may have no replica: it is asleep at
// once, and nothing is started for it.
func (h *house) fallsAsleep(dir string) {
	h.t.Helper()
	began := time.Now()
	r := h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "-o", "json").exits(0)
	var v api.RunView
	r.read(&v)
	if took := time.Since(began); v.Status != api.StatusSleeping || v.DesiredReplicas != 0 || took > 5*time.Second {
		h.t.Errorf("applied, it is %s with %d replicas wanted, after %s; want sleeping at once", v.Status, v.DesiredReplicas, took)
	}
	if err := h.nothingLeft(); err != nil {
		h.t.Errorf("it sleeps, and %v", err)
	}
	h.cli("ps").exits(0).says("sleeping")
}

// asleep waits until a service sleeps, and nothing runs.
func (h *house) asleep(run string) {
	h.t.Helper()
	h.eventually(time.Minute, run+" sleeps", func() error {
		if v := h.look(run); v.Status != api.StatusSleeping {
			return fmt.Errorf("it is %s, %d are wanted: %s", v.Status, v.DesiredReplicas, replicasOf(v))
		}
		return h.nothingLeft()
	})
}

// TestSleepingAndAuth: whoever may not call a service does not wake it.
func TestSleepingAndAuth(t *testing.T) {
	h := needEngine(t, "process")
	h.fallsAsleep(h.folder(h.workload("private", "replicas: 0..1", quick("rps", 1))))
	for range 3 {
		h.refused(h.service("private", "/"))
	}
	h.answers(h.url()+"/healthcheck", 200)
	if v := h.look("private"); v.Status != api.StatusSleeping {
		t.Errorf("calls without a token woke it: it is %s", v.Status)
	}
	for _, e := range h.happened("private") {
		if e.Kind == dstack.EventScaled {
			t.Errorf("calls without a token made it scale: %s", told([]api.EventView{e}))
		}
	}
	h.answers(h.service("private", "/"), 200)
}
