package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// herdRequests is how many requests come at once, and maxHerdTime is when all must have a response. They need two
// seconds on a machine that does nothing else, and the goal is five. Without the limit of openings, the last ones come
// after 12 to 17 seconds.
const (
	herdRequests = 200
	maxHerdTime  = 10 * time.Second
)

// TestHerdAtPythonServer sends 200 requests at once to Python's http.server, whose listen queue has five places: while it sleeps,
// and when it is ready.
func TestHerdAtPythonServer(t *testing.T) {
	h := newParallelHarness(t, "process")
	needPiece(t, "python", "DSTACK_TEST_PYTHON")
	config := "type: service\nname: herd\nport: auto\nreplicas: 0..1\n" + fastScaling("rps", 1000) +
		"\ncommands:\n- exec python3 -m http.server $PORT --bind 127.0.0.1\n"
	h.applySleeping(h.newFolder(config))
	for _, state := range []string{"asleep", "ready"} {
		began := time.Now()
		first, problems := h.getAtOnce(herdRequests, h.serviceURL("herd", "/"))
		took := time.Since(first) // starting the replica is not counted
		if len(problems) > 0 || took > maxHerdTime {
			t.Errorf("%s: %d of %d requests had a response in %s, not %v", state, herdRequests-len(problems), herdRequests, took, problems)
		}
		t.Logf("%s: the first response after %s, %d requests in %s", state, first.Sub(began), herdRequests, took)
	}
}

// getAtOnce sends n GETs at the same time, each over a connection of its own. It returns when the first response came, and what
// went wrong.
func (h *harness) getAtOnce(n int, address string) (first time.Time, problems []error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			r, err := h.sendRequest("GET", address, h.token, "")
			if err == nil && r.status != 200 {
				err = fmt.Errorf("status %d: %.100s", r.status, r.body)
			}
			mu.Lock()
			defer mu.Unlock()
			if first.IsZero() {
				first = time.Now()
			}
			if err != nil {
				problems = append(problems, err)
			}
		})
	}
	all.Wait()
	return first, problems
}
