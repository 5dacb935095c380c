package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// setVersion returns the configuration with another VERSION.
func setVersion(config string, from, to int) string {
	return strings.Replace(config, fmt.Sprintf("VERSION=%d", from), fmt.Sprintf("VERSION=%d", to), 1)
}

// TestRolloutDuringStreams updates a run several times. No stream is cut, no request
// fails, and there are never fewer ready replicas than desired.
func TestRolloutDuringStreams(t *testing.T) {
	h := newParallelHarness(t, "docker")
	updates, n, drain := 3, 25, 15 // streams of five seconds
	if isLongRun() {
		updates, n, drain = 10, 300, 120
	}
	config := h.workloadConfig("rolls", "replicas: 2", fmt.Sprintf("drain_timeout: %ds", drain), "- VERSION=0")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	first := h.listContainerNames()
	requests := h.startTraffic(20, h.serviceURL("rolls", "/who"))
	streams := h.startStreams("rolls", n, 200, 250*time.Millisecond)
	for i := range updates {
		h.waitUntil(time.Minute, "streams have started", func() error { return streams.checkStarted(8 * (i + 1)) })
		config = setVersion(config, i, i+1)
		v := h.applyChange(dir, config)
		if v.Revision != i+2 || v.Ready != 2 {
			t.Errorf("after update %d the revision is %d with %d ready replicas", i+1, v.Revision, v.Ready)
		}
		for range 10 {
			if s := h.measureRequest("GET", h.serviceURL("rolls", "/who"), nil); s.err != nil || s.version != fmt.Sprint(i+1) {
				t.Errorf("after update %d a response is of version %q: %v", i+1, s.version, s.err)
			}
		}
	}
	requests.expectNoFailure("requests")
	all := streams.expectComplete("streams")
	h.waitForReplicas(30*time.Second, "rolls", 2)
	old := 0
	for _, s := range all {
		if s.version != fmt.Sprint(updates) {
			old++
		}
	}
	if old == 0 {
		t.Error("no stream was open while its replica was replaced")
	}
	for _, id := range first {
		if slices.Contains(h.listContainerNames(), id) {
			t.Errorf("the container %s still exists", id)
		}
	}
	h.expectEvent("rolls", dstack.EventApplied, "", "")
	h.expectEvent("rolls", dstack.EventReady, "", "", fmt.Sprintf("revision %d serves", updates+1))
	h.expectEvent("rolls", dstack.EventReplica, "ready", "draining", fmt.Sprintf("replaced by revision %d", updates+1))
}

// TestUpdateOfProcess checks an update where two replicas cannot run at the same
// time: the old replica ends first, and requests wait.
func TestUpdateOfProcess(t *testing.T) {
	h := newParallelHarness(t, "process")
	config := h.workloadConfig("recreates", "drain_timeout: 10s", "- VERSION=0")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	requests := h.startTraffic(20, h.serviceURL("recreates", "/who"))
	streams := h.startStreams("recreates", 20, 100, 200*time.Millisecond)
	h.waitUntil(time.Minute, "streams have started", func() error { return streams.checkStarted(5) })
	h.applyChange(dir, setVersion(config, 0, 1))
	if s := h.measureRequest("GET", h.serviceURL("recreates", "/who"), nil); s.version != "1" {
		t.Errorf("after the update a response is of version %q: %v", s.version, s.err)
	}
	requests.expectNoFailure("requests")
	streams.expectComplete("streams")
	h.waitForReplicas(20*time.Second, "recreates", 1)
}

// TestInPlaceUpdate checks that changes that do not affect containers keep all of
// them.
func TestInPlaceUpdate(t *testing.T) {
	h := newParallelHarness(t, "docker")
	config := h.workloadConfig("stays", "replicas: 1", "auth: true")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	before := h.listContainerNames()
	requests := h.startTraffic(30, h.serviceURL("stays", "/who"))
	steps := []struct{ from, to string }{
		{"replicas: 1", "replicas: 3"},
		{"auth: true", "auth: false"},
		{"replicas: 3", "replicas: 3\nrate_limits: [{rps: 1000, burst: 1000}]"},
		{"replicas: 3", "replicas: 1..3\n" + fastScaling("rps", 3)},
	}
	for i, step := range steps {
		config = strings.Replace(config, step.from, step.to, 1)
		h.writeFile(dir+"/service.dstack.yml", config)
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").expectExit(0).expectText("in place")
		now := h.listContainerNames()
		if i > 0 && i < 3 && len(now) != 3 {
			t.Errorf("after %q the containers are %v", step.to, now)
		}
		if !slices.Contains(now, before[0]) {
			t.Errorf("after %q the container %s is gone; the containers are %v", step.to, before[0], now)
		}
		if i < 3 {
			before = now
		}
	}
	requests.expectNoFailure("requests during all changes")
	h.expectResponse("GET", h.serviceURL("stays", "/who"), "", "", 200) // auth: false
	if v := h.findRun("stays"); v.Revision != len(steps)+1 || v.Min != 1 || v.Max != 3 {
		t.Errorf("the run has revision %d with %d to %d replicas", v.Revision, v.Min, v.Max)
	}
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0).expectText("nothing changed")
}

// TestManualRollback rolls back to the revision before and to a given one.
func TestManualRollback(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		config := h.workloadConfig("back", "- VERSION=1", "drain_timeout: 2s")
		dir := h.newFolder(config)
		h.applyAndWait(dir)
		h.runCLI("rollback", "back", "-y").expectError(1, "back") // there is no earlier revision
		for i := 1; i < 3; i++ {
			config = setVersion(config, i, i+1)
			h.applyChange(dir, config)
		}
		requests := h.startTraffic(5, h.serviceURL("back", "/who"))
		h.runCLI("rollback", "back").expectError(2, "-y")
		h.runCLI("rollback", "back", "-y").expectExit(0)
		h.waitForRevision("back", 4, "2")
		h.runCLI("rollback", "back", "--to", "1", "-y").expectExit(0)
		h.waitForRevision("back", 5, "1")
		h.runCLI("rollback", "back", "--to", "9", "-y").expectError(1, "9")
		h.runCLI("rollback", "nobody", "-y").expectError(1, "nobody")
		requests.expectNoFailure("requests")

		var history []string
		for _, r := range h.listRevisions("back") {
			history = append(history, fmt.Sprintf("%d of %d %s", r.Num, r.Restores, r.Status))
			if r.Current != (r.Num == 5) || r.User == "" || r.At.IsZero() {
				t.Errorf("revision %d: %+v", r.Num, r)
			}
		}
		want := []string{"5 of 1 ready", "4 of 2 ready", "3 of 0 ready", "2 of 0 ready", "1 of 0 ready"}
		if !slices.Equal(history, want) {
			t.Errorf("the history is %q, want %q", history, want)
		}
		h.runCLI("history", "back").expectExit(0).expectText("REVISION", "VERSION")
	})
}

// waitForRevision waits until a revision is ready and checks the version that
// answers.
func (h *harness) waitForRevision(run string, revision int, version string) {
	h.t.Helper()
	h.waitUntil(30*time.Second, fmt.Sprintf("%s is ready at revision %d", run, revision), func() error {
		v := h.fetchRun(run)
		if v.Revision != revision || v.Status != api.StatusReady {
			return fmt.Errorf("the run is %s at revision %d: %s", v.Status, v.Revision, formatReplicas(v))
		}
		return nil
	})
	if s := h.measureRequest("GET", h.serviceURL(run, "/who"), nil); s.err != nil || s.version != version {
		h.t.Errorf("at revision %d a response is of version %q, want %q: %v", revision, s.version, version, s.err)
	}
}
