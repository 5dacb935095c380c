package lifecycle_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
)

// silenceHost pulls the cable of a host for n ticks.
func (w *world) silenceHost(m *machine, n int) {
	m.silentAt, m.silentUntil = w.now, w.now.Add(time.Duration(n)*tick)
}

// Hosts go away and come back while two runs use them. Nothing else fails. A replica gets no
// requests 12 seconds after its host fell silent (checkRoutes); it is replaced where there is
// room; no run fails; and what is left on a host that comes back is stopped before anything
// starts there (checkStart).
func TestSim_HostsGoAwayAndComeBack(t *testing.T) {
	simulate(t, 25, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		gpus := rapid.IntRange(0, 1).Draw(t, "GPUs each")
		for range 3 {
			w.addHost(rapid.IntRange(1, 2).Draw(t, "CPUs"), 2*gpus)
		}
		first := w.tenant
		w.submit(w.specOf("good 1", 1, gpus, fixed(rapid.IntRange(1, 2).Draw(t, "replicas"))))
		w.addTenant("other")
		w.submit(w.specOf("good 1", 1, gpus, fixed(1)))
		for range 40 {
			w.tick()
		}
		for range rapid.IntRange(1, 3).Draw(t, "events") {
			for i, m := range w.hosts {
				if rapid.Bool().Draw(t, fmt.Sprint("host ", i, " goes away")) {
					w.silenceHost(m, rapid.SampledFrom([]int{15, 28, 40, 120}).Draw(t, "for"))
				}
			}
			if w.tenant = first; rapid.IntRange(0, 3).Draw(t, "stops") == 0 && !w.run.Status.IsFinished() && w.run.Stop == dstack.StopNone {
				w.stop(rapid.SampledFrom([]dstack.StopRequest{dstack.StopGraceful, dstack.StopAbort}).Draw(t, "how"))
				if !w.runUntil(110, func() bool { return w.run.Status.IsFinished() }) {
					t.Fatalf("a run does not end while a host is away: %s", w.dump())
				}
				w.addTenant(fmt.Sprint("run", len(w.tenants)))
				w.submit(w.specOf("good 1", 1, gpus, fixed(1)))
				first = w.tenant
			}
			for range rapid.IntRange(1, 130).Draw(t, "ticks") {
				w.tick()
			}
		}
		w.stopFaults()
		for range 120 {
			w.tick()
		}
		w.each(func() {
			if w.run.Status == dstack.RunFailed || w.run.Stop == dstack.StopNone && !w.hasConverged() || w.run.Status == dstack.RunTerminating {
				t.Fatalf("run %s did not converge: %s", w.run.ID, w.dump())
			}
		})
	})
}

// Where there is room, a service with a replica on a host that goes away has all its
// replicas again within 15 seconds and the time that a start takes, and at most the requests
// of the first seconds fail. The host comes back without its replica.
func TestSim_ALostReplicaIsReplaced(t *testing.T) {
	simulate(t, 10, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		for range 3 {
			w.addHost(2, 0)
		}
		w.submit(w.specOf("good 1", 1, 0, fixed(2)))
		for range 30 {
			w.tick()
		}
		lost := w.machine(w.mine()[0].Instance)
		w.silenceHost(lost, 200)
		for range 22 {
			w.tick()
		}
		for id := range w.routes() {
			if w.replicas[id].Instance == lost.id {
				t.Fatalf("replica %s gets requests after 11 seconds: %s", id, w.dump())
			}
		}
		failed := w.web.failed
		for range 30 {
			w.tick()
		}
		if n := len(w.routes()); n != 2 || w.web.failed > failed+1 {
			t.Fatalf("%d replicas serve after 26 seconds, %d more requests failed: %s", n, w.web.failed-failed, w.dump())
		}
		for range 200 {
			w.tick()
		}
		if len(lost.engine) > 0 || w.unfinished() != 2 || w.ready() != 2 {
			t.Fatalf("%d attempts on the host that came back: %s", len(lost.engine), w.dump())
		}
	})
}

// Where no other machine suits, the replica stays, its run does not fail, and it serves
// again when its host answers.
func TestSim_ALostReplicaWithoutRoomElsewhereComesBack(t *testing.T) {
	simulate(t, 8, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		m := w.addHost(1, 0)
		w.submit(w.specOf("good 1", 1, 0, fixed(1)))
		starting := rapid.Bool().Draw(t, "while it starts")
		for range map[bool]int{true: 2, false: 30}[starting] {
			w.tick()
		}
		r := w.mine()[0]
		attempt := r.Attempt
		w.silenceHost(m, 400)
		for range 380 {
			w.tick()
		}
		if want := "host host0 has not answered for 10s"; w.run.Status != dstack.RunActive || r.Status.IsFinished() || !strings.HasPrefix(string(r.Reason), want) ||
			!strings.Contains(string(w.run.Reason), want) {
			t.Fatalf("after 190 s: %s", w.dump())
		}
		for range 60 {
			w.tick()
		}
		if r.Status != dstack.ReplicaReady || r.Attempt != attempt || w.unfinished() != 1 || len(w.routes()) != 1 {
			t.Fatalf("after the host came back: %s", w.dump())
		}
	})
}

// A host that drains loses its replicas without a failed request, where there is room; where
// there is none, they stay.
func TestSim_ADrainingHostLosesItsReplicas(t *testing.T) {
	simulate(t, 15, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		hasRoom := rapid.Bool().Draw(t, "has room")
		wanted := rapid.IntRange(1, 3).Draw(t, "replicas")
		drains := w.addHost(wanted, 0)
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 30 {
			w.tick()
		}
		if hasRoom {
			w.addHost(wanted, 0)
		}
		drains.isDraining = true
		for range 250 {
			w.tick()
			if n := len(w.routes()); n < wanted {
				t.Fatalf("%d replicas serve, want %d: %s", n, wanted, w.dump())
			}
		}
		if isIdle := len(drains.engine) == 0; isIdle != hasRoom || w.web.failed > 0 {
			t.Fatalf("the host is idle: %t, %d requests failed: %s", isIdle, w.web.failed, w.dump())
		}
		if !hasRoom && !strings.Contains(string(w.run.Reason), "host host0 is draining") {
			t.Fatalf("the reason of the run is %q", w.run.Reason)
		}
		drains.isDraining = false
		for range 60 {
			w.tick()
		}
		if w.unfinished() != wanted || w.ready() != wanted {
			t.Fatalf("after it does not drain any more: %s", w.dump())
		}
	})
}

// A run is stopped while its host is away, and another has been placed there meanwhile: on
// the host that comes back nothing starts before what the first left has ended (checkStart).
func TestSim_WhatIsLeftOnAHostEndsBeforeAnythingStarts(t *testing.T) {
	simulate(t, 20, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		m := w.addHost(2, 0)
		first := w.tenant
		w.submit(w.specOf("good 1", 1, 0, fixed(1)))
		for range 30 {
			w.tick()
		}
		w.silenceHost(m, rapid.IntRange(60, 100).Draw(t, "silent for"))
		w.addTenant("second")
		second := w.tenant
		w.submit(w.specOf("good 1", 1, 0, fixed(1)))
		for range 10 {
			w.tick()
		}
		w.tenant = first
		w.stop(dstack.StopGraceful)
		for range 45 {
			w.tick()
		}
		left := first.run.Status.IsFinished() && len(m.engine) == 1
		if w.tenant = second; !left || w.mine()[0].Status != dstack.ReplicaStarting {
			t.Fatalf("the first run left nothing, or the second was not placed: %s", w.dump())
		}
		for range 100 {
			w.tick()
		}
		if len(m.engine) != 1 || w.ready() != 1 {
			t.Fatalf("%d attempts on the host, %d ready: %s", len(m.engine), w.ready(), w.dump())
		}
	})
}
