package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestKilledServer kills the server at random moments of a run's life, and
// looks after each restart for what was lost, doubled or left.
func TestKilledServer(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		rounds, replicas := 5, 1 // three kills a round
		extra := []string{}
		if engine == "docker" {
			replicas = 2 // each has an address of its own there
			extra = append(extra, "replicas: 2")
		}
		seed := time.Now().UnixNano()
		t.Logf("seed %d", seed)
		dice := rand.New(rand.NewPCG(uint64(seed), 0))
		h := newHouse(t, engine)
		dir := h.folder(h.workload("survivor", extra...))
		for round := range rounds {
			h.killDuring(dice, func() { h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d") })
			v := h.apply(dir)
			h.counts(round, replicas)
			if v.Ready != replicas {
				t.Fatalf("round %d: %d replicas are ready, want %d", round, v.Ready, replicas)
			}

			before := h.pids(replicas)
			h.kill()
			h.start()
			h.answers(h.service("survivor", "/"), 200) // at once
			if after := h.pids(replicas); after != before {
				t.Errorf("round %d: processes %s became %s while the server was away", round, before, after)
			}
			h.counts(round, replicas)

			h.killDuring(dice, func() { h.cli("stop", "survivor", "-y") })
			if v := h.run("survivor"); !v.Status.IsFinished() {
				h.stopped("survivor")
			}
			h.eventually(20*time.Second, "nothing of it is left", h.nothingLeft)
		}
		if all := h.psAll(); len(all) != 1 || all[0].Status != api.StatusStopped {
			t.Errorf("the history of one name is %+v, want the last run, stopped", all)
		}
	})
}

// killDuring kills the server at a random moment while something is asked of
// it, and starts it again. What was asked may fail: the server went away.
func (h *house) killDuring(dice *rand.Rand, ask func()) {
	h.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ask()
	}()
	after := time.Duration(dice.IntN(600)) * time.Millisecond
	time.Sleep(after)
	h.kill()
	h.start()
	<-ended
	h.t.Logf("killed after %s", after)
}

// counts checks that as many replicas run as there should, and no more.
func (h *house) counts(round, want int) {
	h.t.Helper()
	if active := h.ps(); len(active) != 1 {
		h.t.Fatalf("round %d: %d runs are active, want 1: %+v", round, len(active), active)
	}
	running := h.workloads()
	if h.engine == "docker" {
		names, err := h.containers()
		if err != nil {
			h.t.Fatal(err)
		}
		running = names
	}
	if len(running) != want {
		h.t.Fatalf("round %d: %d replicas run, want %d: %v", round, len(running), want, running)
	}
}

// workloads are the processes of this house that run the workload.
func (h *house) workloads() []string {
	var found []string
	for _, p := range h.processes() {
		if fields := strings.Fields(p); strings.HasSuffix(fields[min(1, len(fields)-1)], "/workload") {
			found = append(found, p)
		}
	}
	return found
}

// pids tells the replicas apart: containers by their names, processes by number.
func (h *house) pids(replicas int) string {
	h.t.Helper()
	if h.engine == "docker" {
		names, err := h.containers()
		if err != nil {
			h.t.Fatal(err)
		}
		return fmt.Sprint(names)
	}
	if replicas != 1 {
		h.t.Fatal("processes share this machine's ports")
	}
	return fmt.Sprint(h.about("survivor").PID)
}
