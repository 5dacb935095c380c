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

// version is a configuration with another VERSION.
func version(config string, from, to int) string {
	return strings.Replace(config, fmt.Sprintf("VERSION=%d", from), fmt.Sprintf("VERSION=%d", to), 1)
}

// TestRollsUnderStreams: update after update, and not one stream is cut, not
// one request fails, and there are never fewer replicas than wanted.
func TestRollsUnderStreams(t *testing.T) {
	h := needEngine(t, "docker")
	updates, n, drain := 3, 25, 15 // streams of five seconds
	if long() {
		updates, n, drain = 10, 300, 120
	}
	config := h.workload("rolls", "replicas: 2", fmt.Sprintf("drain_timeout: %ds", drain), "- VERSION=0")
	dir := h.folder(config)
	h.apply(dir)
	first := h.ids()
	requests := h.asks(20, h.service("rolls", "/who"))
	streams := h.listens("rolls", n, 200, 250*time.Millisecond)
	for i := range updates {
		h.eventually(time.Minute, "streams have begun", func() error { return streams.have(8 * (i + 1)) })
		config = version(config, i, i+1)
		v := h.becomes(dir, config)
		if v.Revision != i+2 || v.Ready != 2 {
			t.Errorf("after update %d the revision is %d with %d ready replicas", i+1, v.Revision, v.Ready)
		}
		for range 10 {
			if s := h.shot("GET", h.service("rolls", "/who"), nil); s.err != nil || s.version != fmt.Sprint(i+1) {
				t.Errorf("after update %d a request was answered by version %q: %v", i+1, s.version, s.err)
			}
		}
	}
	requests.endsWell("requests")
	all := streams.endWell("streams")
	h.reaches(30*time.Second, "rolls", 2)
	old := 0
	for _, s := range all {
		if s.version != fmt.Sprint(updates) {
			old++
		}
	}
	if old == 0 {
		t.Error("no stream was there when its replica was replaced")
	}
	for _, id := range first {
		if slices.Contains(h.ids(), id) {
			t.Errorf("the container %s is still there", id)
		}
	}
	h.tells("rolls", dstack.EventApplied, "", "")
	h.tells("rolls", dstack.EventReady, "", "", fmt.Sprintf("revision %d serves", updates+1))
	h.tells("rolls", dstack.EventReplica, "ready", "draining", fmt.Sprintf("replaced by revision %d", updates+1))
}

// TestUpdateOfProcess: where two replicas cannot be at once, the old one
// leaves first, and requests wait meanwhile.
func TestUpdateOfProcess(t *testing.T) {
	h := needEngine(t, "process")
	config := h.workload("recreates", "drain_timeout: 10s", "- VERSION=0")
	dir := h.folder(config)
	h.apply(dir)
	requests := h.asks(20, h.service("recreates", "/who"))
	streams := h.listens("recreates", 20, 100, 200*time.Millisecond)
	h.eventually(time.Minute, "streams have begun", func() error { return streams.have(5) })
	h.becomes(dir, version(config, 0, 1))
	if s := h.shot("GET", h.service("recreates", "/who"), nil); s.version != "1" {
		t.Errorf("after the update a request was answered by version %q: %v", s.version, s.err)
	}
	requests.endsWell("requests")
	streams.endWell("streams")
	h.reaches(20*time.Second, "recreates", 1)
}

// TestInPlace: what touches no container keeps them all.
func TestInPlace(t *testing.T) {
	h := needEngine(t, "docker")
	config := h.workload("stays", "replicas: 1", "auth: true")
	dir := h.folder(config)
	h.apply(dir)
	before := h.ids()
	requests := h.asks(30, h.service("stays", "/who"))
	steps := []struct{ from, to string }{
		{"replicas: 1", "replicas: 3"},
		{"auth: true", "auth: false"},
		{"replicas: 3", "replicas: 3\nrate_limits: [{rps: 1000, burst: 1000}]"},
		{"replicas: 3", "replicas: 1..3\n" + quick("rps", 3)},
	}
	for i, step := range steps {
		config = strings.Replace(config, step.from, step.to, 1)
		h.write(dir+"/service.dstack.yml", config)
		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready").exits(0).says("in place")
		now := h.ids()
		if i > 0 && i < 3 && len(now) != 3 {
			t.Errorf("after %q there are the containers %v", step.to, now)
		}
		if !slices.Contains(now, before[0]) {
			t.Errorf("after %q the container %s is gone, there are %v", step.to, before[0], now)
		}
		if i < 3 {
			before = now
		}
	}
	requests.endsWell("all the time")
	h.expect("GET", h.service("stays", "/who"), "", "", 200) // auth: false
	if v := h.run("stays"); v.Revision != len(steps)+1 || v.Min != 1 || v.Max != 3 {
		t.Errorf("it is revision %d with %d to %d replicas", v.Revision, v.Min, v.Max)
	}
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").exits(0).says("nothing changed")
}

// TestRollbackByHand brings an earlier revision back: the one before, or any.
func TestRollbackByHand(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		config := h.workload("back", "- VERSION=1", "drain_timeout: 2s")
		dir := h.folder(config)
		h.apply(dir)
		h.cli("rollback", "back", "-y").refuses(1, "back") // to what?
		for i := 1; i < 3; i++ {
			config = version(config, i, i+1)
			h.becomes(dir, config)
		}
		requests := h.asks(5, h.service("back", "/who"))
		h.cli("rollback", "back").refuses(2, "-y")
		h.cli("rollback", "back", "-y").exits(0)
		h.serves("back", 4, "2")
		h.cli("rollback", "back", "--to", "1", "-y").exits(0)
		h.serves("back", 5, "1")
		h.cli("rollback", "back", "--to", "9", "-y").refuses(1, "9")
		h.cli("rollback", "nobody", "-y").refuses(1, "nobody")
		requests.endsWell("requests")

		var told []string
		for _, r := range h.revisions("back") {
			told = append(told, fmt.Sprintf("%d of %d %s", r.Num, r.Restores, r.Status))
			if r.Current != (r.Num == 5) || r.User == "" || r.At.IsZero() {
				t.Errorf("revision %d: %+v", r.Num, r)
			}
		}
		want := []string{"5 of 1 ready", "4 of 2 ready", "3 of 0 ready", "2 of 0 ready", "1 of 0 ready"}
		if !slices.Equal(told, want) {
			t.Errorf("the history is %q, want %q", told, want)
		}
		h.cli("history", "back").exits(0).says("REVISION", "VERSION")
	})
}

// serves waits until a revision is ready and all answer with a version.
func (h *house) serves(run string, revision int, version string) {
	h.t.Helper()
	h.eventually(30*time.Second, fmt.Sprintf("%s is ready at revision %d", run, revision), func() error {
		v := h.look(run)
		if v.Revision != revision || v.Status != api.StatusReady {
			return fmt.Errorf("it is %s at revision %d: %s", v.Status, v.Revision, replicasOf(v))
		}
		return nil
	})
	if s := h.shot("GET", h.service(run, "/who"), nil); s.err != nil || s.version != version {
		h.t.Errorf("at revision %d a request was answered by version %q, want %q: %v", revision, s.version, version, s.err)
	}
}
