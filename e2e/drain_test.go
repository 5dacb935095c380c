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

// TestStopsUnderStreams: fewer replicas, and then none, under streams. Each
// is finished, and who has nothing more to do is not waited for.
func TestStopsUnderStreams(t *testing.T) {
	h := needEngine(t, "docker")
	n, drain := 20, 20 // streams of four seconds
	if long() {
		n, drain = 300, 120
	}
	config := h.workload("ends", "replicas: 3", fmt.Sprintf("drain_timeout: %ds", drain))
	dir := h.folder(config)
	h.apply(dir)
	streams := h.listens("ends", n, 200, 300*time.Millisecond)
	requests := h.asks(10, h.service("ends", "/who"))
	h.instances("ends", 3)
	h.becomes(dir, strings.Replace(config, "replicas: 3", "replicas: 1", 1))
	h.reaches(time.Duration(drain)*time.Second, "ends", 1)
	streams.endWell("streams while replicas left")
	requests.endsWell("requests while replicas left")

	var last []*stream
	for range 4 {
		last = append(last, h.streams(t.Context(), "ends", n, 200))
	}
	began := time.Now()
	h.stopped("ends")
	took := time.Since(began)
	areWhole(h, "streams while it stopped", last)
	whole := time.Duration(n) * 200 * time.Millisecond
	t.Logf("it stopped after %s, with streams of %s", took.Round(time.Millisecond), whole)
	if took > whole+5*time.Second {
		t.Errorf("it stopped after %s, with streams of %s: it waited for nothing", took, whole)
	}
	h.tells("ends", dstack.EventReplica, "draining", "terminating")
}

// TestDrainHasAnEnd: what does not end is cut, but never before its time, and
// a replica that does not mind SIGTERM is killed.
func TestDrainHasAnEnd(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		h.apply(h.folder(h.workload("endless", "drain_timeout: 3s", "- IGNORE_TERM=1")))
		s := h.streams(t.Context(), "endless", 1000, 100)
		if s.err != nil {
			t.Fatal(s.err)
		}
		began := time.Now()
		h.stopped("endless")
		took := time.Since(began)
		<-s.done
		t.Logf("the stream was cut after %s, and it stopped after %s", s.end.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond))
		if cut := s.end.Sub(began); cut < 3*time.Second {
			t.Errorf("a stream was cut after %s of its 3s", cut)
		}
		if took < 12*time.Second || took > 20*time.Second { // 3s to drain, and 10s after SIGTERM
			t.Errorf("it stopped after %s, want 13s or a little more", took)
		}
		h.eventually(5*time.Second, "nothing is left", h.nothingLeft)
		h.cli("logs", "endless").exits(0).says("workload: asked to stop")
	})
}

// TestAbort waits for nobody.
func TestAbort(t *testing.T) {
	h := needEngine(t, "docker")
	h.apply(h.folder(h.workload("aborted", "drain_timeout: 60s", "- IGNORE_TERM=1")))
	s := h.streams(t.Context(), "aborted", 1000, 100)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.command(h.home, "stop", "aborted", "-y").Run()
	}()
	h.eventually(20*time.Second, "it drains", func() error { return h.replicaIs("aborted", 0, dstack.ReplicaDraining) })
	began := time.Now()
	h.cli("stop", "aborted", "-y", "--abort").exits(0)
	h.eventually(5*time.Second, "nothing is left", h.nothingLeft)
	<-s.done
	<-stop
	if took, v := time.Since(began), h.run("aborted"); took > 8*time.Second || v.Status != api.StatusStopped {
		t.Errorf("it was gone after %s, and is %s", took, v.Status)
	}
}

// TestIdlestLeaves: of three replicas the one without a stream leaves, at
// once, and whoever has one stays.
func TestIdlestLeaves(t *testing.T) {
	h := needEngine(t, "docker")
	config := h.workload("idle", "replicas: 3", "drain_timeout: 30s")
	dir := h.folder(config)
	h.apply(dir)
	all := h.instances("idle", 3)
	newest := h.streamOn("idle", h.containerOfReplica("idle", 2), all)
	second := h.streamOn("idle", h.containerOfReplica("idle", 0), all)
	idle := h.containerOfReplica("idle", 1)
	since := time.Now()
	h.eventually(10*time.Second, "the server has heard of these two", func() error {
		if load := h.explained("idle").Load; load.InFlight != 2 || time.Since(since) < 1500*time.Millisecond { // it hears each second
			return fmt.Errorf("it knows of %+v", load)
		}
		return nil
	})
	began := time.Now()
	h.becomes(dir, strings.Replace(config, "replicas: 3", "replicas: 2", 1))
	h.eventually(10*time.Second, "the idle one is gone", func() error {
		if now := h.ids(); slices.Contains(now, idle) {
			return fmt.Errorf("there are %v: %s", now, replicasOf(h.look("idle")))
		}
		return nil
	})
	t.Logf("it left after %s", time.Since(began).Round(time.Millisecond))
	if err := h.runs(2); err != nil {
		t.Error(err)
	}
	areWhole(h, "streams on the others", []*stream{newest, second})
	h.reaches(5*time.Second, "idle", 2)
}

// containerOfReplica is the present container of a replica, by its number.
func (h *house) containerOfReplica(run string, num int) string {
	h.t.Helper()
	attempt := string(replica(h.look(run), num).SubmissionID)
	name := docker(h.t, "ps", "-q", "--no-trunc", "--filter", "label=dstack.attempt="+attempt)
	if name == "" {
		h.t.Fatalf("replica %d of %s has no container: %s", num, run, replicasOf(h.look(run)))
	}
	return docker(h.t, "inspect", "-f", "{{slice .Name 1}}", name)
}

// streamOn opens a stream of 15 seconds to a certain container: streams that
// come to others are left again at once.
func (h *house) streamOn(run, container string, all []string) *stream {
	h.t.Helper()
	for range 10 * len(all) {
		ctx, leave := context.WithCancel(h.t.Context())
		s := h.streams(ctx, run, 75, 200)
		if s.err == nil && h.containerOf(s.instance) == container {
			h.t.Cleanup(leave)
			return s
		}
		defer leave() // it stays busy meanwhile, so that the next one goes elsewhere
	}
	h.t.Fatalf("no stream came to %s", container)
	return nil
}

// TestWhileDraining: the run that stops takes no new request, and says so.
func TestWhileDraining(t *testing.T) {
	h := needEngine(t, "process")
	h.apply(h.folder(h.workload("leaves", "drain_timeout: 20s")))
	s := h.streams(t.Context(), "leaves", 25, 200)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_ = h.command(h.home, "stop", "leaves", "-y").Run()
	}()
	h.eventually(5*time.Second, "it drains", func() error { return h.replicaIs("leaves", 0, dstack.ReplicaDraining) })
	if v := h.look("leaves"); v.Status != api.StatusStopping {
		t.Errorf("it is %s, want stopping", v.Status)
	}
	h.eventually(time.Second, "it takes no new request", func() error {
		a, err := h.call("GET", h.service("leaves", "/who"), h.token, "")
		if err == nil && a.status != 404 && a.status != 503 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	areWhole(h, "the stream", []*stream{s})
	<-stop
	if v := h.run("leaves"); v.Status != api.StatusStopped {
		t.Errorf("it is %s", v.Status)
	}
}
