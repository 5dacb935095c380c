package gateway

import (
	"container/list"
	"context"
	"errors"
	"maps"
	"sync"

	"dstack/internal/dstack"
)

// Why a request is not held (any longer).
var (
	errHoldFull = errors.New("too many requests wait for this run")
	errStopping = errors.New("the gateway is stopping")
)

// hold keeps requests that wait for a replica, in the order in which they
// came. Each new table lets them look again, the first first; a request that
// has left is forgotten at once.
type hold struct {
	mu      sync.Mutex
	queue   list.List // of *waiter
	waiting map[dstack.RunID]int
	most    int // of one run
	stopped bool
}

type waiter struct {
	settle func() bool
	done   chan struct{}
	err    error
}

func newHold(most int) *hold {
	return &hold{waiting: map[dstack.RunID]int{}, most: most}
}

// until returns once settle has returned true, or fails when the run has too
// many requests waiting, ctx ends, or the gateway stops. Settle is called now
// and for each new table, by one goroutine at a time and never after until
// has returned; it must not wait for anything.
func (h *hold) until(ctx context.Context, run dstack.RunID, settle func() bool) error {
	h.mu.Lock()
	switch {
	case settle():
		h.mu.Unlock()
		return nil
	case h.stopped:
		h.mu.Unlock()
		return errStopping
	case h.waiting[run] >= h.most:
		h.mu.Unlock()
		return errHoldFull
	}
	w := &waiter{settle: settle, done: make(chan struct{})}
	place := h.queue.PushBack(w)
	h.waiting[run]++
	h.mu.Unlock()

	var left error
	select {
	case <-w.done:
	case <-ctx.Done():
		left = context.Cause(ctx)
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting[run]--; h.waiting[run] == 0 {
		delete(h.waiting, run)
	}
	select {
	case <-w.done: // settled, if only just as ctx ended
		return w.err
	default:
		h.queue.Remove(place)
		return left
	}
}

// wake makes every waiting request look again.
func (h *hold) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := h.queue.Front(); e != nil; {
		next := e.Next()
		if w := e.Value.(*waiter); w.settle() {
			h.queue.Remove(e)
			close(w.done)
		}
		e = next
	}
}

// close sends all waiting requests away, and all that come later.
func (h *hold) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for e := h.queue.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		w.err = errStopping
		close(w.done)
	}
	h.queue.Init()
}

// all returns how many requests wait, by run.
func (h *hold) all() map[dstack.RunID]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.waiting)
}
