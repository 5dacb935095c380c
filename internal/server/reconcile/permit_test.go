package reconcile_test

import (
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// A server whose permit has ended starts, stops and removes nothing, and saves nothing; with a new permit it goes on.
func TestPasses_ActOnlyWithAPermit(t *testing.T) {
	r := newRig(t)
	var isEnded atomic.Bool
	var asked atomic.Int64
	r.permit = func() func() error {
		return func() error {
			asked.Add(1)
			if isEnded.Load() {
				return &dstack.Error{Kind: dstack.Conflict, Message: "this server was frozen"}
			}
			return nil
		}
	}
	r.begin(lifecycle.Limits{})
	first := r.submitLike(func(*spec.Service) {}, "first")
	r.until(first, "ready", ready(1))
	isEnded.Store(true)
	second := r.submitLike(func(*spec.Service) {}, "second")
	if err := r.store.StopRun(t.Context(), first, dstack.StopGraceful, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.passes.Wake()
	before := asked.Load()
	r.until(second, "placed", func(w store.RunDetails) bool { return len(w.Replicas) == 1 && w.Replicas[0].Attempt != "" })
	for end := time.Now().Add(10 * time.Second); asked.Load() < before+3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody asks for a permit")
		}
	}
	if n := r.engine.count(); n != 1 {
		t.Errorf("%d attempts are on the engine, want only that of before", n)
	}
	isEnded.Store(false)
	r.passes.Wake()
	r.until(second, "ready", ready(1))
	r.until(first, "terminated", func(w store.RunDetails) bool { return w.Run.Status == dstack.RunTerminated })
}
