package reconcile_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// logBuffer is a log that tests read.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *logBuffer) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *logBuffer) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Replicas that are decided in one pass see each other's placements: no more are
// placed than fit, and the reason of the others says why they wait.
func TestPasses_OfManyReplicasTwoFit(t *testing.T) {
	r := newRig(t)
	var log logBuffer
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	r.begin(lifecycle.Limits{PlaceTimeout: time.Minute})
	one := 1
	id := r.submitLike(func(s *spec.Service) {
		s.Replicas = spec.Replicas{Min: 40, Max: 40}
		s.Resources.CPU, s.Resources.Explicit.CPU = spec.Range[int]{Min: &one, Max: &one}, true
	})
	w := r.until(id, "placed", func(w store.RunDetails) bool {
		waiting := 0
		for _, rep := range w.Replicas {
			if rep.Status == dstack.ReplicaWaiting && strings.Contains(string(rep.Reason), "0 of its 2 CPUs free, 1 asked for") {
				waiting++
			}
		}
		return readyCount(w) == 2 && waiting == 38
	})
	if n := r.engine.count(); n != 2 || len(w.Replicas) != 40 {
		t.Errorf("%d attempts of %d replicas", n, len(w.Replicas))
	}
	if text := log.String(); strings.Contains(text, "a step failed") {
		t.Error(text)
	}
}
