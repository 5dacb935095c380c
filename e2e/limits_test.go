package e2e

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// TestRateLimits checks that a caller's burst passes, that requests over it get 429
// with a Retry-After, and that callers have separate limits.
func TestRateLimits(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("limited",
		"rate_limits: [{prefix: /slow, rps: 0.5, burst: 3, key: {type: header, header: X-Caller}}, {prefix: /size, rps: 0.2}]")))
	ask := func(path, caller string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", h.serviceURL("limited", path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+h.token)
		req.Header.Set("X-Caller", caller)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode, res.Header
	}
	for i := range 4 { // the first one and the burst of three
		if status, _ := ask("/slow?ms=0", "one"); status != 200 {
			t.Errorf("request %d: status %d", i, status)
		}
	}
	status, header := ask("/slow?ms=0", "one")
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if status != 429 || err != nil || seconds < 1 || seconds > 2 {
		t.Fatalf("over the burst: status %d, Retry-After %q; want 429 and two seconds at most", status, header.Get("Retry-After"))
	}
	again := time.Now().Add(time.Duration(seconds) * time.Second)
	if status, _ := ask("/slow?ms=0", "two"); status != 200 {
		t.Errorf("the status for another caller is %d", status)
	}
	if status, _ := ask("/who", "one"); status != 200 {
		t.Errorf("the status for another path is %d", status)
	}
	if status, _ := ask("/size", "one"); status != 200 {
		t.Errorf("by address: status %d", status)
	}
	if status, _ := ask("/size", "two"); status != 429 { // from the same address
		t.Errorf("by address, again: status %d", status)
	}
	time.Sleep(time.Until(again)) // as Retry-After says
	if status, _ := ask("/slow?ms=0", "one"); status != 200 {
		t.Errorf("the status after Retry-After is %d", status)
	}
}

// TestMaxDuration checks that a run stops by itself after max_duration, and
// completes its streams.
func TestMaxDuration(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("short", "max_duration: 5s", "drain_timeout: 10s")))
		s := h.openStream(t.Context(), "short", 35, 200)
		h.waitUntil(30*time.Second, "the run ends by itself", func() error {
			if v := h.fetchRun("short"); !v.Status.IsFinished() {
				return errNotYet
			}
			return nil
		})
		v := h.findRun("short")
		if v.Ending != dstack.EndDuration || v.Status != api.StatusStopped || v.ReadyAt == nil {
			t.Errorf("the run is %s, ended by %q: %s", v.Status, v.Ending, v.Reason)
		}
		if lived := v.FinishedAt.Sub(v.SubmittedAt); lived < 5*time.Second {
			t.Errorf("the run lasted %s", lived)
		}
		expectCompleteStreams(h, "the open stream", []*eventStream{s})
		h.runCLI("ps", "-a", "-v").expectExit(0).expectText("max_duration")
		h.expectEvent("short", dstack.EventRun, "", "terminating", "max_duration")
		h.waitUntil(5*time.Second, "nothing is left", h.checkNothingLeft)
	})
}

// TestEventsOutliveRun checks that the events of a deleted run can be read, and have
// the user who did something.
func TestEventsOutliveRun(t *testing.T) {
	h := newParallelHarness(t, "process")
	config := h.workloadConfig("gone", "- VERSION=1")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	h.applyChange(dir, setVersion(config, 1, 2))
	h.stopRun("gone")
	before := h.listEvents("gone")
	h.runCLI("delete", "gone", "-y").expectExit(0)
	after := h.listEvents("gone")
	if len(after) < len(before) {
		t.Errorf("there were %d events before the run was deleted, and are %d", len(before), len(after))
	}
	var kinds []dstack.EventKind
	last := int64(0)
	for _, e := range after {
		kinds = append(kinds, e.Kind)
		if e.RunName != "gone" || e.At.IsZero() || e.ID <= last {
			t.Errorf("the event is out of order, or of another run: %+v", e)
		}
		last = e.ID
		if (e.Kind == dstack.EventApplied || e.Kind == dstack.EventStop) && e.User != "admin" {
			t.Errorf("the event does not have the user: %+v", e)
		}
	}
	for _, kind := range []dstack.EventKind{dstack.EventApplied, dstack.EventReplica, dstack.EventReady, dstack.EventRun, dstack.EventStop} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no event has the kind %s:\n%s", kind, formatEvents(after))
		}
	}
	h.runCLI("events", "gone").expectExit(0).expectText("revision 2")
	h.applyAndWait(dir) // a new run with the same name
	if now := h.listEvents("gone"); len(now) <= len(after) {
		t.Errorf("there were %d events before a new run of the name, and are %d", len(after), len(now))
	}
	h.runCLI("events", "nobody").expectError(1, "nobody")
}
