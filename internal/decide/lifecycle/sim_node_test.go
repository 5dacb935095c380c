package lifecycle_test

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"dstack/internal/dstack"
)

// While the API server of a cluster does not answer, however long, its replicas go on serving as they are: no status
// changes, nothing is placed elsewhere, and afterwards the same attempts run, each once.
func TestSim_TheAPIServerGoesAway(t *testing.T) {
	simulate(t, 12, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		for range 3 {
			w.addNode(2, 0)
		}
		wanted := rapid.IntRange(1, 4).Draw(t, "replicas")
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 30 {
			w.tick()
		}
		silence := rapid.SampledFrom([]int{3, 40, 250, 700}).Draw(t, "for")
		w.stopAPI(silence)
		for w.isAPIDown() {
			w.tick()
			if n := len(w.routes()); n != wanted {
				t.Fatalf("%d replicas serve, want %d: %s", n, wanted, w.dump())
			}
		}
		reason := w.instances[w.mine()[0].Instance].Reason
		if silence > 35 && reason != "the API server of kubernetes does not answer: its backend does not answer" {
			t.Fatalf("the reason of a node is %q after %d ticks", reason, silence)
		}
		for range 60 {
			w.tick()
		}
		attempts := 0
		for _, m := range w.hosts {
			attempts += len(m.engine)
		}
		for _, r := range w.mine() {
			if r.AttemptNum != 0 || r.Status != dstack.ReplicaReady {
				t.Fatalf("replica %d changed: %s", r.Num, w.dump())
			}
		}
		if attempts != wanted || len(w.mine()) != wanted || w.web.failed > 0 {
			t.Fatalf("%d attempts of %d replicas, %d requests failed: %s", attempts, len(w.mine()), w.web.failed, w.dump())
		}
	})
}

// A replica that starts while the API server goes away is not late: what was said of it last is old. Its attempt goes on.
func TestSim_TheAPIServerGoesAwayDuringAStart(t *testing.T) {
	simulate(t, 12, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		w.addNode(2, 0)
		w.submit(w.specOf("good 1", 1, 0, fixed(2)))
		for range rapid.IntRange(2, 10).Draw(t, "ticks before") {
			w.tick()
		}
		w.stopAPI(rapid.SampledFrom([]int{50, 200, 700}).Draw(t, "for"))
		for w.isAPIDown() {
			w.tick()
		}
		for range 60 {
			w.tick()
		}
		for _, r := range w.replicas {
			if r.Status != dstack.ReplicaReady || r.AttemptNum > 0 || r.Crashes > 0 {
				t.Fatalf("replica %d, attempt %d, %d crashes: %s", r.Num, r.AttemptNum, r.Crashes, w.dump())
			}
		}
	})
}

// A node that dies is replaced as a host is, also if the API server went away just then; it is replaced once the API server
// can tell. A node that was removed is not waited for.
func TestSim_ALostNodeIsReplaced(t *testing.T) {
	simulate(t, 12, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		for range 3 {
			w.addNode(2, 0)
		}
		w.submit(w.specOf("good 1", 1, 0, fixed(2)))
		for range 30 {
			w.tick()
		}
		lost := w.machine(w.mine()[0].Instance)
		switch how := rapid.SampledFrom([]string{"silent", "with the API server", "removed"}).Draw(t, "how"); how {
		case "removed":
			w.removeNode(lost)
		default:
			w.silenceHost(lost, 300)
			if how == "with the API server" {
				w.stopAPI(100)
				for w.isAPIDown() {
					w.tick()
				}
			}
		}
		for range 80 {
			w.tick()
		}
		on := map[dstack.InstanceID]bool{}
		for id := range w.routes() {
			on[w.replicas[id].Instance] = true
		}
		if len(w.routes()) != 2 || on[lost.id] {
			t.Fatalf("%d replicas serve on %v, and %s is lost: %s", len(w.routes()), sorted(on), lost.id, w.dump())
		}
		for range 300 {
			w.tick()
		}
		if len(lost.engine) > 0 || w.unfinished() != 2 || w.ready() != 2 {
			t.Fatalf("%d attempts on the node that came back: %s", len(lost.engine), w.dump())
		}
	})
}

// A cordoned node loses its replicas without a failed request, and so can be drained.
func TestSim_ACordonedNodeLosesItsReplicas(t *testing.T) {
	simulate(t, 6, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		wanted := rapid.IntRange(1, 3).Draw(t, "replicas")
		drains := w.addNode(wanted, 0)
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 30 {
			w.tick()
		}
		w.addNode(wanted, 0)
		drains.isDraining = true
		for range 250 {
			w.tick()
			if n := len(w.routes()); n < wanted {
				t.Fatalf("%d replicas serve, want %d: %s", n, wanted, w.dump())
			}
		}
		if len(drains.engine) > 0 || w.web.failed > 0 {
			t.Fatalf("%d attempts on the cordoned node, %d requests failed: %s", len(drains.engine), w.web.failed, w.dump())
		}
	})
}

// A pod that someone deletes is replaced at once, however long its end takes, and what is in flight there goes on.
func TestSim_ADeletedPodIsReplacedBeforeItsEnd(t *testing.T) {
	simulate(t, 12, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		for range 2 {
			w.addNode(4, 0)
		}
		wanted := rapid.IntRange(1, 3).Draw(t, "replicas")
		w.submit(w.specOf("good 1", 1, 0, fixed(wanted)))
		for range 30 {
			w.tick()
		}
		old := w.machine(w.mine()[0].Instance)
		count := len(old.engine)
		w.deletePods(old, rapid.SampledFrom([]int{60, 200, 1000}).Draw(t, "end in"))
		for range 20 {
			w.tick()
		}
		if n := len(w.routes()); n != wanted {
			t.Fatalf("%d of %d pods were deleted, and %d replicas serve: %s", count, wanted, n, w.dump())
		}
		for range 300 {
			w.tick()
		}
		if w.unfinished() != wanted || w.ready() != wanted || w.web.failed > 0 {
			t.Fatalf("%d requests failed: %s", w.web.failed, w.dump())
		}
		for _, r := range w.replicas {
			if r.Crashes > 0 || r.AttemptNum > 0 {
				t.Fatalf("replica %d was started again: %s", r.Num, w.dump())
			}
		}
	})
}

// Nodes die, come back, are removed, drained and added, pods are evicted and preempted, and the API server goes away, while two
// runs use them. No crash is counted, no run fails, no replica is doubled (checkRoutes), and all serve in the end.
func TestSim_NodesComeAndGo(t *testing.T) {
	simulate(t, 25, func(t *rapid.T) {
		w := emptyWorld(t)
		w.faults = false
		gpus := rapid.IntRange(0, 1).Draw(t, "GPUs each")
		for range 3 {
			w.addNode(rapid.IntRange(1, 2).Draw(t, "CPUs"), 2*gpus)
		}
		w.submit(w.specOf("good 1", 1, gpus, fixed(rapid.IntRange(1, 2).Draw(t, "replicas"))))
		w.addTenant("other")
		w.submit(w.specOf("good 1", 1, gpus, fixed(1)))
		for range 40 {
			w.tick()
		}
		for range rapid.IntRange(1, 4).Draw(t, "events") {
			m := w.hosts[rapid.IntRange(0, len(w.hosts)-1).Draw(t, "node")]
			switch rapid.SampledFrom([]string{"silent", "evicted", "deleted", "API", "removed", "cordoned"}).Draw(t, "event") {
			case "silent":
				w.silenceHost(m, rapid.SampledFrom([]int{10, 25, 45, 130}).Draw(t, "for"))
			case "evicted":
				for _, p := range m.engine {
					p.ended, p.code, p.isDisrupted = true, 137, true
				}
			case "deleted":
				w.deletePods(m, rapid.SampledFrom([]int{1, 30, 100}).Draw(t, "end in"))
			case "API":
				w.stopAPI(rapid.SampledFrom([]int{5, 50, 200}).Draw(t, "for"))
			case "removed":
				if !m.isRemoved {
					w.removeNode(m)
					w.addNode(2, 2*gpus)
				}
			case "cordoned":
				m.isDraining = !m.isDraining
			}
			for range rapid.IntRange(1, 130).Draw(t, "ticks") {
				w.tick()
			}
		}
		w.apiDownUntil = w.now
		w.stopFaults()
		for range 150 {
			w.tick()
		}
		w.each(func() {
			if w.run.Status != dstack.RunActive || !w.hasConverged() {
				t.Fatalf("run %s did not converge: %s", w.run.ID, w.dump())
			}
		})
		for id, r := range maps.All(w.replicas) {
			if r.Crashes > 0 || r.Status == dstack.ReplicaFailed {
				t.Fatalf("replica %s has %s", id, fmt.Sprint(r.Crashes, " crashes: ", w.dump()))
			}
		}
	})
}
