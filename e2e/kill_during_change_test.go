package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// TestServerKilledDuringChanges kills the server during each kind of change of a
// run. The restarted server completes the change; nothing is doubled and nothing is
// left.
func TestServerKilledDuringChanges(t *testing.T) {
	h := newParallelHarness(t, "docker")
	config := h.workloadConfig("phoenix", "replicas: 0..3", fastScaling("concurrency", 1), "drain_timeout: 20s", "- VERSION=1", "- LISTEN_AFTER=300")
	dir := h.newFolder(config)
	h.applySleeping(dir)
	h.killWhileWaking("phoenix")
	h.killWhileScaling("phoenix")
	fixed := strings.Replace(config, "replicas: 0..3\n"+fastScaling("concurrency", 1), "replicas: 2", 1)
	h.applyChange(dir, fixed)
	h.waitForReplicas(30*time.Second, "phoenix", 2)
	h.killDuringRollout("phoenix", dir, setVersion(fixed, 1, 2))
	h.killDuringRollback("phoenix", dir, strings.Replace(setVersion(fixed, 1, 3), "- exec ./workload", "- exit 9\n- exec ./workload", 1))
	h.killWhileDraining("phoenix", dir, strings.Replace(setVersion(fixed, 1, 2), "replicas: 2", "replicas: 1", 1))
	h.killWhileStopping("phoenix")
	if all := h.listRuns(); len(all) != 1 || all[0].Ending != dstack.EndStopped {
		t.Errorf("the runs at the end are %+v", all)
	}
}

// killWhen kills the server as soon as check returns no error, and starts it again.
func (h *harness) killWhen(what string, check func() error) {
	h.t.Helper()
	h.waitUntil(30*time.Second, what, check)
	h.killServer()
	h.startServer()
	h.t.Logf("killed when %s", what)
}

func (h *harness) killWhileWaking(run string) {
	h.t.Helper()
	lost := h.startTraffic(0.001, h.serviceURL(run, "/who")) // fails when the server is killed
	h.killWhen("the service wakes", func() error { return h.checkDesiredReplicas(run, 1) })
	lost.finish()
	h.waitUntilStable(run)
	if s := h.measureRequest("GET", h.serviceURL(run, "/who"), nil); s.err != nil {
		h.t.Errorf("a request after the server was killed during a wake-up: %v", s.err)
	}
	h.waitForReplicas(20*time.Second, run, 1)
}

func (h *harness) checkDesiredReplicas(run string, n int) error {
	if v := h.fetchRun(run); v.DesiredReplicas < n {
		return fmt.Errorf("%d replicas are desired", v.DesiredReplicas)
	}
	return nil
}

// waitUntilStable waits until the number of ready replicas is the desired one.
func (h *harness) waitUntilStable(run string) {
	h.t.Helper()
	h.waitUntil(30*time.Second, "the run is stable", func() error {
		v := h.fetchRun(run)
		if v.Ready != v.DesiredReplicas {
			return fmt.Errorf("%d replicas are desired, %d ready: %s", v.DesiredReplicas, v.Ready, formatReplicas(v))
		}
		return h.checkReplicaCount(v.DesiredReplicas)
	})
}

func (h *harness) killWhileScaling(run string) {
	h.t.Helper()
	busy := h.startTraffic(5, h.serviceURL(run, "/slow?ms=1000"))
	h.killWhen("the service scales", func() error { return h.checkDesiredReplicas(run, 2) })
	h.waitForReplicas(time.Minute, run, 3) // the traffic continues
	for _, s := range filterFailed(busy.finish()) {
		if s.status != 0 { // 0: the server was not running; another status is from the restarted server
			h.t.Errorf("a request after the server was killed during scaling: %v", s.err)
		}
	}
}

func (h *harness) killDuringRollout(run, dir, config string) {
	h.t.Helper()
	h.submitConfig(dir, config)
	h.killWhen("the first new replica starts", func() error {
		for _, r := range h.fetchRun(run).Replicas {
			if r.Revision == h.fetchRun(run).Revision && r.Status == dstack.ReplicaStarting {
				return nil
			}
		}
		return errNotYet
	})
	requests := h.startTraffic(10, h.serviceURL(run, "/who"))
	h.waitForReplicas(time.Minute, run, 2)
	h.waitUntil(time.Minute, "all replicas have the new version", func() error {
		if v := h.fetchRun(run); v.Status != api.StatusReady {
			return fmt.Errorf("the run is %s: %s", v.Status, formatReplicas(v))
		}
		return nil
	})
	if s := h.measureRequest("GET", h.serviceURL(run, "/who"), nil); s.version != "2" {
		h.t.Errorf("the response is of version %q: %v", s.version, s.err)
	}
	requests.expectNoFailure("requests after the server was killed during a rollout")
}

func (h *harness) killDuringRollback(run, dir, config string) {
	h.t.Helper()
	before := h.listContainerNames()
	h.submitConfig(dir, config)
	h.killWhen("the new revision crashes", func() error {
		for _, r := range h.fetchRun(run).Replicas {
			if r.Restarts > 0 || r.Status == dstack.ReplicaRestarting {
				return nil
			}
		}
		return errNotYet
	})
	h.waitUntil(time.Minute, "the run is rolled back", func() error {
		if v := h.fetchRun(run); v.RolledBack == nil || v.Status != api.StatusReady {
			return fmt.Errorf("the run is %s at revision %d: %s", v.Status, v.Revision, formatReplicas(v))
		}
		return nil
	})
	h.waitForReplicas(20*time.Second, run, 2)
	if after := h.listContainerNames(); fmt.Sprint(before) != fmt.Sprint(after) {
		h.t.Errorf("the containers were %v before the rollback and are %v after it", before, after)
	}
}

func (h *harness) killWhileDraining(run, dir, config string) {
	h.t.Helper()
	streams := []*eventStream{h.openStream(h.t.Context(), run, 100, 100), h.openStream(h.t.Context(), run, 100, 100)}
	h.submitConfig(dir, config)
	h.killWhen("a replica drains", func() error { return h.checkAnyReplica(run, dstack.ReplicaDraining) })
	for _, s := range streams {
		<-s.done // the gateway is part of the server
	}
	start := time.Now()
	h.waitForReplicas(30*time.Second, run, 1)
	h.t.Logf("the replica was drained %s after the restart of the server", time.Since(start).Round(time.Millisecond))
	if s := h.measureRequest("GET", h.serviceURL(run, "/who"), nil); s.err != nil {
		h.t.Error(s.err)
	}
}

func (h *harness) checkAnyReplica(run string, status dstack.ReplicaStatus) error {
	v := h.fetchRun(run)
	for _, r := range v.Replicas {
		if r.Status == status {
			return nil
		}
	}
	return fmt.Errorf("no replica is %s: %s", status, formatReplicas(v))
}

func (h *harness) killWhileStopping(run string) {
	h.t.Helper()
	s := h.openStream(h.t.Context(), run, 100, 100)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.newCommand(h.home, "stop", run, "-y").Run()
	}()
	h.killWhen("the run stops", func() error { return h.checkAnyReplica(run, dstack.ReplicaDraining) })
	<-s.done
	<-stop
	h.waitUntil(40*time.Second, "the run has stopped", func() error {
		if v := h.findRun(run); v.Status != api.StatusStopped {
			return fmt.Errorf("the run is %s: %s", v.Status, formatReplicas(v))
		}
		return h.checkNothingLeft()
	})
}
