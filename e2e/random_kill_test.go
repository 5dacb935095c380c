package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestServerKilledAtRandom kills the server at random moments of a run's life. After
// each restart nothing may be lost, doubled or left.
func TestServerKilledAtRandom(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		rounds, replicas := 5, 1 // with three kills each
		extra := []string{}
		if engine == "docker" {
			replicas = 2 // containers have addresses of their own
			extra = append(extra, "replicas: 2")
		}
		seed := time.Now().UnixNano()
		t.Logf("seed %d", seed)
		dice := rand.New(rand.NewPCG(uint64(seed), 0))
		h := newHarness(t, engine)
		dir := h.newFolder(h.workloadConfig("survivor", extra...))
		for round := range rounds {
			h.killDuring(dice, func() { h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d") })
			v := h.applyAndWait(dir)
			h.expectReplicaCount(round, replicas)
			if v.Ready != replicas {
				t.Fatalf("round %d: %d replicas are ready, want %d", round, v.Ready, replicas)
			}

			before := h.identifyReplicas(replicas)
			h.killServer()
			h.startServer()
			h.expectStatus(h.serviceURL("survivor", "/"), 200)
			if after := h.identifyReplicas(replicas); after != before {
				t.Errorf("round %d: the processes were %s before the restart of the server and are %s after it", round, before, after)
			}
			h.expectReplicaCount(round, replicas)

			h.killDuring(dice, func() { h.runCLI("stop", "survivor", "-y") })
			if v := h.findRun("survivor"); !v.Status.IsFinished() {
				h.stopRun("survivor")
			}
			h.waitUntil(20*time.Second, "nothing is left of the run", h.checkNothingLeft)
		}
		if all := h.listRuns(); len(all) != 1 || all[0].Status != api.StatusStopped {
			t.Errorf("the runs are %+v, want only the last one, stopped", all)
		}
	})
}

// killDuring kills the server at a random moment during action, and starts it again.
// The action may fail.
func (h *harness) killDuring(dice *rand.Rand, action func()) {
	h.t.Helper()
	h.killWithin(600*time.Millisecond, dice, action)
}

// killWithin is killDuring with the latest moment.
func (h *harness) killWithin(limit time.Duration, dice *rand.Rand, action func()) {
	h.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		action()
	}()
	after := time.Duration(dice.Int64N(int64(limit)))
	time.Sleep(after)
	h.killServer()
	h.startServer()
	<-ended
	h.t.Logf("killed after %s", after)
}

// expectReplicaCount checks that exactly want replicas run.
func (h *harness) expectReplicaCount(round, want int) {
	h.t.Helper()
	if active := h.listActiveRuns(); len(active) != 1 {
		h.t.Fatalf("round %d: %d runs are active, want 1: %+v", round, len(active), active)
	}
	running := h.listWorkloads()
	if h.engine == "docker" {
		names, err := h.listContainers()
		if err != nil {
			h.t.Fatal(err)
		}
		running = names
	}
	if len(running) != want {
		h.t.Fatalf("round %d: %d replicas run, want %d: %v", round, len(running), want, running)
	}
}

// listWorkloads returns the processes that run the workload.
func (h *harness) listWorkloads() []string {
	var found []string
	for _, p := range h.listProcesses() {
		if fields := strings.Fields(p); strings.HasSuffix(fields[min(1, len(fields)-1)], "/workload") {
			found = append(found, p)
		}
	}
	return found
}

// identifyReplicas returns a text that identifies the replicas: container names or
// process numbers.
func (h *harness) identifyReplicas(replicas int) string {
	h.t.Helper()
	if h.engine == "docker" {
		names, err := h.listContainers()
		if err != nil {
			h.t.Fatal(err)
		}
		return fmt.Sprint(names)
	}
	if replicas != 1 {
		h.t.Fatal("the process engine runs one replica")
	}
	return fmt.Sprint(h.fetchInfo("survivor").PID)
}
