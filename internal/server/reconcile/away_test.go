package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// addHosts replaces the machine of the rig with remote hosts, each with its own engine.
func (r *rig) addHosts(n, cpus int) []*fakeEngine {
	engines := make([]*fakeEngine, n)
	byID := map[dstack.InstanceID]engine.Engine{}
	var offers []dstack.Offer
	for i := range n {
		id := dstack.InstanceID(fmt.Sprintf("host%d", i))
		engines[i] = newFakeEngine()
		byID[id] = engines[i]
		offers = append(offers, dstack.Offer{
			Backend: "ssh", Region: "remote", Type: string(id), OwnedInstance: id, Key: "ssh", IsRemote: true,
			Hardware: dstack.Hardware{CPUs: cpus, MemoryMiB: 4096, DiskMiB: 10240}, Engine: containers,
		})
	}
	r.set = backend.NewSet()
	r.set.Share("ssh", backendtest.NewFake(backendtest.FakeOptions{
		Offers: offers, NewEngine: func(id dstack.InstanceID) engine.Engine { return byID[id] },
	}))
	return engines
}

// oneCPU makes each replica hold a CPU.
func oneCPU(replicas int) func(*spec.Service) {
	return func(s *spec.Service) {
		s.Replicas = spec.Replicas{Min: replicas, Max: replicas}
		s.Resources.CPU, s.Resources.Explicit.CPU = spec.Range[int]{Min: new(1), Max: new(1)}, true
	}
}

// An engine that hangs holds up its own instance alone: others are synced meanwhile.
func TestInstancePass_AnEngineThatHangsHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	engines := r.addHosts(2, 1)
	r.begin(lifecycle.Limits{})
	first := r.submitLike(oneCPU(1))
	hung := r.until(first, "ready", ready(1)).Replicas[0].Instance
	for i, e := range engines {
		if hung == dstack.InstanceID(fmt.Sprintf("host%d", i)) {
			e.with(func(e *fakeEngine) { e.hangs = true })
		}
	}
	time.Sleep(1200 * time.Millisecond) // the hung call has begun
	began := time.Now()
	second := r.submitLike(oneCPU(1), "second")
	r.until(second, "ready", ready(1))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the other host was synced after %s", took)
	}
}

// The replica of a host whose engine does not answer gets no requests after 10 seconds, and is
// replaced after 15. When the host answers again, what was replaced there is stopped.
func TestPasses_ALostHost(t *testing.T) {
	r := newRig(t)
	engines := r.addHosts(2, 1)
	r.begin(lifecycle.Limits{})
	id := r.submitLike(oneCPU(1))
	was := r.until(id, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 && !w.Run.ReadyAt.IsZero() }).Replicas[0]
	lost, other := engines[0], engines[1]
	if was.Instance == "host1" {
		lost, other = other, lost
	}
	began := time.Now()
	lost.with(func(e *fakeEngine) { e.hangs = true })
	r.until(id, "out of rotation", func(store.RunDetails) bool {
		table, err := r.store.Routes(t.Context())
		return err == nil && len(table.Routes[0].Ready) == 0
	})
	if took := time.Since(began); took < 9*time.Second || took > 14*time.Second {
		t.Errorf("out of rotation after %s, want 10 s", took)
	}
	w := r.until(id, "replaced", func(w store.RunDetails) bool {
		return slices.ContainsFunc(w.Replicas, func(rep dstack.Replica) bool {
			return rep.Status == dstack.ReplicaReady && rep.Instance != was.Instance
		})
	})
	if took := time.Since(began); took < 14*time.Second || took > 20*time.Second {
		t.Errorf("replaced after %s, want 15 s", took)
	}
	for _, rep := range w.Replicas {
		if rep.ID == was.ID && !strings.Contains(string(rep.Reason), "host "+string(was.Instance)+" has not answered for 10s") {
			t.Errorf("the reason is %q", rep.Reason)
		}
	}
	lost.with(func(e *fakeEngine) { e.hangs = false })
	deadline := time.Now().Add(10 * time.Second)
	for lost.count() > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if lost.count() != 0 || other.count() != 1 {
		t.Errorf("%d attempts on the host that came back, %d on the other", lost.count(), other.count())
	}
}
