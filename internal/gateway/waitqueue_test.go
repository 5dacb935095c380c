package gateway

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWaitQueue(2, 1<<20)
		var up atomic.Bool
		wait := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() { done <- h.wait(ctx, "run", up.Load) }()
			synctest.Wait()
			return done
		}

		patient := wait(t.Context())
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		leaving := wait(ctx)
		if err := <-wait(t.Context()); !errors.Is(err, errQueueFull) {
			t.Errorf("third of two: got %v", err)
		}
		elsewhere := make(chan error, 1)
		go func() { elsewhere <- h.wait(t.Context(), "other", up.Load) }()
		synctest.Wait()
		if n := h.queueSizes()["other"]; n != 1 {
			t.Errorf("a full run keeps another from waiting: %d", n)
		}

		if err := <-leaving; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("client that left: got %v", err)
		}
		if n := h.queueSizes()["run"]; n != 1 {
			t.Errorf("%d held after a client left, want 1", n)
		}

		h.wakeAll() // a table without a replica of it
		synctest.Wait()
		if n := h.queueSizes()["run"]; n != 1 {
			t.Errorf("%d held after an unrelated table, want 1", n)
		}
		up.Store(true)
		h.wakeAll()
		for _, done := range []<-chan error{patient, elsewhere} {
			if err := <-done; err != nil {
				t.Errorf("patient client: got %v", err)
			}
		}
		if len(h.queueSizes()) != 0 || h.queue.Len() != 0 {
			t.Errorf("left behind: %v, %d", h.queueSizes(), h.queue.Len())
		}
	})
}

func TestHold_TheFirstToComeIsTheFirstToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWaitQueue(100, 1<<20)
		var free int
		var order []int
		for i := range 20 {
			go func() {
				err := h.wait(t.Context(), "run", func() bool {
					if free == 0 {
						return false
					}
					free--
					order = append(order, i)
					return true
				})
				if err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		for range 10 {
			h.mu.Lock()
			free = 2
			h.mu.Unlock()
			h.wakeAll()
		}
		synctest.Wait()
		want := make([]int, 20)
		for i := range want {
			want[i] = i
		}
		if !slices.Equal(order, want) {
			t.Errorf("order %v", order)
		}
	})
}

func TestHold_CloseSendsAllAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWaitQueue(10, 1<<20)
		never := func() bool { return false }
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- h.wait(t.Context(), "run", never) }()
		}
		synctest.Wait()
		h.close()
		for range 2 {
			if err := <-done; !errors.Is(err, errStopping) {
				t.Errorf("got %v", err)
			}
		}
		if err := h.wait(t.Context(), "run", never); !errors.Is(err, errStopping) {
			t.Errorf("after the end: got %v", err)
		}
		if err := h.wait(t.Context(), "run", func() bool { return true }); err != nil {
			t.Errorf("one that need not wait: got %v", err)
		}
	})
}

// TestHold_NobodyIsLostOrSettledTwice lets requests come, leave and settle at
// once.
func TestHold_NobodyIsLostOrSettledTwice(t *testing.T) {
	h := newWaitQueue(10_000, 1<<20)
	var free, settled, left atomic.Int64
	done := make(chan struct{})
	for i := range 500 {
		go func() {
			defer func() { done <- struct{}{} }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			mine := false
			err := h.wait(ctx, "run", func() bool {
				if free.Load() == 0 {
					return false
				}
				free.Add(-1)
				if mine {
					t.Error("settled twice")
				}
				mine = true
				return true
			})
			if mine != (err == nil) {
				t.Errorf("settled %v, and got %v", mine, err)
			}
			if err == nil {
				settled.Add(1)
			} else {
				left.Add(1)
			}
		}()
	}
	for n := 0; n < 500; {
		select {
		case <-done:
			n++
		default:
			free.Store(1)
			h.wakeAll()
		}
	}
	if settled.Load()+left.Load() != 500 || len(h.queueSizes()) != 0 || h.queue.Len() != 0 {
		t.Errorf("%d settled, %d left, %v wait, queue %d", settled.Load(), left.Load(), h.queueSizes(), h.queue.Len())
	}
}
