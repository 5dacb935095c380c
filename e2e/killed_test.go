package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// TestKilledWhileLiving kills the server in the middle of each thing that a
// service that lives goes through. Started again, it brings it to its end:
// nothing is doubled, and nothing is left behind.
func TestKilledWhileLiving(t *testing.T) {
	h := needEngine(t, "docker")
	config := h.workload("phoenix", "replicas: 0..3", quick("concurrency", 1), "drain_timeout: 20s", "- VERSION=1", "- LISTEN_AFTER=300")
	dir := h.folder(config)
	h.fallsAsleep(dir)
	h.killedWhileWaking("phoenix")
	h.killedWhileScaling("phoenix")
	fixed := strings.Replace(config, "replicas: 0..3\n"+quick("concurrency", 1), "replicas: 2", 1)
	h.becomes(dir, fixed)
	h.reaches(30*time.Second, "phoenix", 2)
	h.killedWhileRolling("phoenix", dir, version(fixed, 1, 2))
	h.killedWhileFallingBack("phoenix", dir, strings.Replace(version(fixed, 1, 3), "- exec ./workload", "- exit 9\n- exec ./workload", 1))
	h.killedWhileDraining("phoenix", dir, strings.Replace(version(fixed, 1, 2), "replicas: 2", "replicas: 1", 1))
	h.killedWhileStopping("phoenix")
	if all := h.psAll(); len(all) != 1 || all[0].Ending != dstack.EndStopped {
		t.Errorf("in the end there are the runs %+v", all)
	}
}

// killedWhen kills the server as soon as something is so, and starts it again.
func (h *house) killedWhen(what string, check func() error) {
	h.t.Helper()
	h.eventually(30*time.Second, what, check)
	h.kill()
	h.start()
	h.t.Logf("killed when %s", what)
}

func (h *house) killedWhileWaking(run string) {
	h.t.Helper()
	lost := h.asks(0.001, h.service(run, "/who")) // it is lost with the server
	h.killedWhen("it wakes", func() error { return h.wants(run, 1) })
	lost.ends()
	h.asleepOrAwake(run)
	if s := h.shot("GET", h.service(run, "/who"), nil); s.err != nil {
		h.t.Errorf("after the server was killed while it woke: %v", s.err)
	}
	h.reaches(20*time.Second, run, 1)
}

func (h *house) wants(run string, n int) error {
	if v := h.look(run); v.DesiredReplicas < n {
		return fmt.Errorf("%d are wanted", v.DesiredReplicas)
	}
	return nil
}

// asleepOrAwake waits until what was begun is done, one way or the other.
func (h *house) asleepOrAwake(run string) {
	h.t.Helper()
	h.eventually(30*time.Second, "it has come to rest", func() error {
		v := h.look(run)
		if v.Ready != v.DesiredReplicas {
			return fmt.Errorf("%d are wanted, %d ready: %s", v.DesiredReplicas, v.Ready, replicasOf(v))
		}
		return h.runs(v.DesiredReplicas)
	})
}

func (h *house) killedWhileScaling(run string) {
	h.t.Helper()
	busy := h.asks(5, h.service(run, "/slow?ms=1000"))
	h.killedWhen("it scales", func() error { return h.wants(run, 2) })
	h.reaches(time.Minute, run, 3) // the traffic went on
	for _, s := range failed(busy.ends()) {
		if s.status != 0 { // no answer from a server that is away; anything else is the new one's
			h.t.Errorf("after the server was killed while it scaled: %v", s.err)
		}
	}
}

func (h *house) killedWhileRolling(run, dir, config string) {
	h.t.Helper()
	h.submits(dir, config)
	h.killedWhen("the first new replica is there", func() error {
		for _, r := range h.look(run).Replicas {
			if r.Revision == h.look(run).Revision && r.Status == dstack.ReplicaStarting {
				return nil
			}
		}
		return errNotYet
	})
	requests := h.asks(10, h.service(run, "/who"))
	h.reaches(time.Minute, run, 2)
	h.eventually(time.Minute, "all are of the new version", func() error {
		if v := h.look(run); v.Status != api.StatusReady {
			return fmt.Errorf("it is %s: %s", v.Status, replicasOf(v))
		}
		return nil
	})
	if s := h.shot("GET", h.service(run, "/who"), nil); s.version != "2" {
		h.t.Errorf("version %q answers: %v", s.version, s.err)
	}
	requests.endsWell("requests after the server was killed while it rolled")
}

func (h *house) killedWhileFallingBack(run, dir, config string) {
	h.t.Helper()
	before := h.ids()
	h.submits(dir, config)
	h.killedWhen("the new revision crashes", func() error {
		for _, r := range h.look(run).Replicas {
			if r.Restarts > 0 || r.Status == dstack.ReplicaRestarting {
				return nil
			}
		}
		return errNotYet
	})
	h.eventually(time.Minute, "it is back at what served", func() error {
		if v := h.look(run); v.RolledBack == nil || v.Status != api.StatusReady {
			return fmt.Errorf("it is %s at revision %d: %s", v.Status, v.Revision, replicasOf(v))
		}
		return nil
	})
	h.reaches(20*time.Second, run, 2)
	if after := h.ids(); fmt.Sprint(before) != fmt.Sprint(after) {
		h.t.Errorf("a bad revision and a killed server made of the containers %v %v", before, after)
	}
}

func (h *house) killedWhileDraining(run, dir, config string) {
	h.t.Helper()
	streams := []*stream{h.streams(h.t.Context(), run, 100, 100), h.streams(h.t.Context(), run, 100, 100)}
	h.submits(dir, config)
	h.killedWhen("one drains", func() error { return h.has(run, dstack.ReplicaDraining) })
	for _, s := range streams {
		<-s.done // the gateway was in the server
	}
	began := time.Now()
	h.reaches(30*time.Second, run, 1)
	h.t.Logf("it had drained %s after the server was back", time.Since(began).Round(time.Millisecond))
	if s := h.shot("GET", h.service(run, "/who"), nil); s.err != nil {
		h.t.Error(s.err)
	}
}

func (h *house) has(run string, status dstack.ReplicaStatus) error {
	v := h.look(run)
	for _, r := range v.Replicas {
		if r.Status == status {
			return nil
		}
	}
	return fmt.Errorf("none is %s: %s", status, replicasOf(v))
}

func (h *house) killedWhileStopping(run string) {
	h.t.Helper()
	s := h.streams(h.t.Context(), run, 100, 100)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.command(h.home, "stop", run, "-y").Run()
	}()
	h.killedWhen("it stops", func() error { return h.has(run, dstack.ReplicaDraining) })
	<-s.done
	<-stop
	h.eventually(40*time.Second, "it has stopped", func() error {
		if v := h.run(run); v.Status != api.StatusStopped {
			return fmt.Errorf("it is %s: %s", v.Status, replicasOf(v))
		}
		return h.nothingLeft()
	})
}
