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

const probed = "probes: [{type: http, url: /health, timeout: 1s, interval: 1s}]"

// TestFrozenReplica: a replica that takes connections and answers nothing is
// out of rotation within two intervals of its probe, and restarted after its
// third failure.
func TestFrozenReplica(t *testing.T) {
	h := needEngine(t, "docker")
	h.apply(h.folder(h.workload("frozen", "replicas: 3", probed)))
	victim := h.containerOf(h.instances("frozen", 3)[1])
	requests := h.asks(20, h.service("frozen", "/who"))
	h.eventually(20*time.Second, "there is traffic", func() error {
		if n := len(requests.seen()); n < 20 {
			return fmt.Errorf("%d requests were answered", n)
		}
		return nil
	})
	freeze(t, victim)
	at := time.Now()
	h.eventually(time.Minute, "it was restarted, and all three are ready", func() error {
		v := h.look("frozen")
		restarts := 0
		for _, r := range v.Replicas {
			restarts += r.Restarts
		}
		if v.Ready != 3 || restarts != 1 {
			return fmt.Errorf("%d are ready, with %d restarts: %s", v.Ready, restarts, replicasOf(v))
		}
		return nil
	})
	t.Logf("it was restarted after %s", time.Since(at).Round(time.Millisecond))
	if slices.Contains(h.ids(), victim) {
		t.Errorf("the container %s is still there", victim)
	}
	last, hung := time.Time{}, 0 // who began last of those that it got
	for _, s := range requests.endsWell("requests") {
		if s.at.After(at) && s.took() > 900*time.Millisecond {
			hung++
			last = slices.MaxFunc([]time.Time{last, s.at}, time.Time.Compare)
		}
	}
	t.Logf("%d requests went to it, the last one %s after it froze", hung, last.Sub(at).Round(time.Millisecond))
	if late := last.Sub(at); late > 2500*time.Millisecond { // two intervals, and a busy machine
		t.Errorf("requests went to it for %s", late)
	}
	h.tells("frozen", dstack.EventReplica, "ready", "unhealthy", "/health")
	h.tells("frozen", dstack.EventReplica, "unhealthy", "restarting", "3 times in a row")
}

// freeze stops all processes of a container, as a kernel does that has none
// left for them: its port still takes connections.
func freeze(t *testing.T, container string) {
	t.Helper()
	lines := strings.Split(docker(t, "top", container, "-o", "pid"), "\n")
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

// TestKilledReplica: no more requests fail than were in flight on a replica
// that ends all of a sudden; and those that may be repeated do not either.
func TestKilledReplica(t *testing.T) {
	h := needEngine(t, "docker")
	h.apply(h.folder(h.workload("killed", "replicas: 3", probed)))
	victim := h.containerOf(h.instances("killed", 3)[1])
	requests := h.asks(30, h.service("killed", "/slow?ms=200"))
	h.eventually(20*time.Second, "there is traffic", func() error {
		if n := len(requests.seen()); n < 30 {
			return fmt.Errorf("%d requests were answered", n)
		}
		return nil
	})
	began := time.Now()
	docker(t, "kill", victim)
	killed := time.Now()
	h.reaches(time.Minute, "killed", 3)
	all := requests.ends()
	inFlight := 0
	for _, s := range all {
		if s.at.Before(killed) && s.end.After(began) {
			inFlight++
		}
	}
	bad := failed(all)
	t.Logf("%d of %d requests failed; %d were in flight, on three replicas", len(bad), len(all), inFlight)
	for _, s := range bad {
		if !s.at.Before(killed) || len(bad) > inFlight {
			t.Errorf("a request failed, begun %s after the replica ended: %v", s.at.Sub(killed), s.err)
		}
	}
	if len(bad) > 0 { // GETs whose answer had not begun go on to another one
		t.Errorf("%d requests failed that could have been repeated: %v", len(bad), bad[0].err)
	}
}

// TestAllSick: when every replica fails its probes, the probes are as likely
// to be wrong as the replicas: traffic still flows.
func TestAllSick(t *testing.T) {
	h := needEngine(t, "docker")
	h.apply(h.folder(h.workload("sick", "replicas: 2", probed)))
	requests := h.asks(10, h.service("sick", "/who"))
	before := h.ids()
	h.eventually(30*time.Second, "both are sick", func() error {
		if s := h.shot("POST", h.service("sick", "/sick"), nil); s.err != nil {
			return s.err
		}
		if v := h.look("sick"); v.Ready != 0 {
			return fmt.Errorf("%d are ready: %s", v.Ready, replicasOf(v))
		}
		return nil
	})
	for range 20 { // nothing is restarted: that would make it worse
		if s := h.shot("GET", h.service("sick", "/slow?ms=200"), nil); s.err != nil {
			t.Errorf("all are sick, and %v", s.err)
		}
	}
	h.cli("ps", "-v").exits(0).says("500")
	if now := h.ids(); !slices.Equal(before, now) {
		t.Errorf("the containers %v became %v", before, now)
	}
	h.eventually(30*time.Second, "they are well again", func() error {
		if s := h.shot("POST", h.service("sick", "/well"), nil); s.err != nil {
			return s.err
		}
		if v := h.look("sick"); v.Ready != 2 {
			return fmt.Errorf("%d are ready: %s", v.Ready, replicasOf(v))
		}
		return nil
	})
	requests.endsWell("requests")
}
