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

func TestWaitQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWaitQueue(2, 1<<20)
		var up atomic.Bool
		wait := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() { done <- q.wait(ctx, "run", up.Load) }()
			synctest.Wait()
			return done
		}

		waiting := wait(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		expiring := wait(ctx)
		if err := <-wait(t.Context()); !errors.Is(err, errQueueFull) {
			t.Errorf("third of two: got %v", err)
		}
		otherRun := make(chan error, 1)
		go func() { otherRun <- q.wait(t.Context(), "other", up.Load) }()
		synctest.Wait()
		if n := q.queueSizes()["other"]; n != 1 {
			t.Errorf("a full run keeps another from waiting: %d", n)
		}

		if err := <-expiring; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("request that timed out: got %v", err)
		}
		if n := q.queueSizes()["run"]; n != 1 {
			t.Errorf("%d held after a client left, want 1", n)
		}

		q.wakeAll() // a table without a replica of the run
		synctest.Wait()
		if n := q.queueSizes()["run"]; n != 1 {
			t.Errorf("%d held after an unrelated table, want 1", n)
		}
		up.Store(true)
		q.wakeAll()
		for _, done := range []<-chan error{waiting, otherRun} {
			if err := <-done; err != nil {
				t.Errorf("waiting request: got %v", err)
			}
		}
		if len(q.queueSizes()) != 0 || q.queue.Len() != 0 {
			t.Errorf("left behind: %v, %d", q.queueSizes(), q.queue.Len())
		}
	})
}

func TestWaitQueue_FirstInFirstOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWaitQueue(100, 1<<20)
		var free int
		var order []int
		for i := range 20 {
			go func() {
				err := q.wait(t.Context(), "run", func() bool {
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
			q.mu.Lock()
			free = 2
			q.mu.Unlock()
			q.wakeAll()
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

func TestWaitQueue_CloseFailsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWaitQueue(10, 1<<20)
		never := func() bool { return false }
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- q.wait(t.Context(), "run", never) }()
		}
		synctest.Wait()
		q.close()
		for range 2 {
			if err := <-done; !errors.Is(err, errStopping) {
				t.Errorf("got %v", err)
			}
		}
		if err := q.wait(t.Context(), "run", never); !errors.Is(err, errStopping) {
			t.Errorf("after the end: got %v", err)
		}
		if err := q.wait(t.Context(), "run", func() bool { return true }); err != nil {
			t.Errorf("a request that need not wait: got %v", err)
		}
	})
}

// Requests arrive, time out and succeed at the same time.
func TestWaitQueue_EachRequestEndsOnce(t *testing.T) {
	q := newWaitQueue(10_000, 1<<20)
	var free, succeeded, timedOut atomic.Int64
	done := make(chan struct{})
	for i := range 500 {
		go func() {
			defer func() { done <- struct{}{} }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			mine := false
			err := q.wait(ctx, "run", func() bool {
				if free.Load() == 0 {
					return false
				}
				free.Add(-1)
				if mine {
					t.Error("a second try succeeded")
				}
				mine = true
				return true
			})
			if mine != (err == nil) {
				t.Errorf("try succeeded %v, and got %v", mine, err)
			}
			if err == nil {
				succeeded.Add(1)
			} else {
				timedOut.Add(1)
			}
		}()
	}
	for n := 0; n < 500; {
		select {
		case <-done:
			n++
		default:
			free.Store(1)
			q.wakeAll()
		}
	}
	if succeeded.Load()+timedOut.Load() != 500 || len(q.queueSizes()) != 0 || q.queue.Len() != 0 {
		t.Errorf("%d succeeded, %d timed out, %v wait, queue %d", succeeded.Load(), timedOut.Load(), q.queueSizes(), q.queue.Len())
	}
}
