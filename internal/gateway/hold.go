package gateway

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"dstack/internal/dstack"
)

// Why a request is not held (any longer).
var (
	errQueueFull  = errors.New("too many requests wait for this run")
	errQueueBytes = errors.New("the requests that wait for this run are too large together")
	errStopping   = errors.New("the gateway is stopping")
)

// waitQueue keeps requests that wait for a replica, in the order in which they
// came. Each new table lets them look again, the first first; a request that
// has left is forgotten at once.
type waitQueue struct {
	mu      sync.Mutex
	queue   list.List // of *waiter
	waiting map[dstack.RunID]crowd
	most    int                            // of one run
	moved   func(run dstack.RunID, by int) // hears of each that begins to wait, and ceases; nil: nobody does
	stopped bool
}

// crowd is what waits for one run.
type crowd struct {
	requests int
	bytes    int64 // of their bodies in memory
}

// waiter is a request that waits.
type waiter struct {
	run    dstack.RunID
	bytes  int64
	settle func() bool
	done   chan struct{}
	err    error
	place  *list.Element
}

func newWaitQueue(most int) *waitQueue {
	return &waitQueue{waiting: map[dstack.RunID]crowd{}, most: most}
}

// wait returns once settle has returned true, or fails when the run has too
// many requests waiting, ctx ends, or the gateway stops. Settle is called now
// and for each new table, by one goroutine at a time and never after until
// has returned; it must not wait for anything.
func (h *waitQueue) wait(ctx context.Context, run dstack.RunID, settle func() bool) error {
	w := &waiter{run: run, settle: settle}
	if waits, err := h.enqueue(w, crowd{requests: h.most}); !waits {
		return err
	}
	select {
	case <-w.done:
		return h.dequeue(w, nil)
	case <-ctx.Done():
		return h.dequeue(w, context.Cause(ctx))
	}
}

// enqueue is the first half of until: where it says that the request waits now,
// w.done ends that, and the caller owes it leave. A body that alone is larger
// than all may be waits where no other does.
func (h *waitQueue) enqueue(w *waiter, most crowd) (waits bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := h.waiting[w.run]
	switch {
	case w.settle():
		return false, nil
	case h.stopped:
		return false, errStopping
	case there.requests >= most.requests:
		return false, errQueueFull
	case w.bytes > 0 && there.bytes > 0 && there.bytes+w.bytes > most.bytes:
		return false, errQueueBytes
	}
	w.done = make(chan struct{})
	w.place = h.queue.PushBack(w)
	h.count(w, 1)
	return true, nil
}

// dequeue ends a wait. It fails with err, or as the wait did, unless the request
// was settled, if only just now.
func (h *waitQueue) dequeue(w *waiter, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	default:
		h.remove(w)
		return err
	}
}

// remove takes a waiter out of the queue.
func (h *waitQueue) remove(w *waiter) {
	h.queue.Remove(w.place)
	h.count(w, -1)
	close(w.done)
}

func (h *waitQueue) count(w *waiter, by int) {
	there := h.waiting[w.run]
	there.requests += by
	there.bytes += int64(by) * w.bytes
	h.waiting[w.run] = there
	if there.requests == 0 {
		delete(h.waiting, w.run)
	}
	if h.moved != nil && w.run != "" {
		h.moved(w.run, by)
	}
}

// wakeAll makes every waiting request look again.
func (h *waitQueue) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := h.queue.Front(); e != nil; {
		next := e.Next()
		if w := e.Value.(*waiter); w.settle() {
			h.remove(w)
		}
		e = next
	}
}

// close sends all waiting requests away, and all that come later.
func (h *waitQueue) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for e := h.queue.Front(); e != nil; e = h.queue.Front() {
		w := e.Value.(*waiter)
		w.err = errStopping
		h.remove(w)
	}
}

// queueSizes returns how many requests wait, by run.
func (h *waitQueue) queueSizes() map[dstack.RunID]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make(map[dstack.RunID]int, len(h.waiting))
	for run, there := range h.waiting {
		all[run] = there.requests
	}
	return all
}
