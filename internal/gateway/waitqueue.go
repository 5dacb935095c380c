package gateway

import (
	"container/list"
	"context"
	"errors"
	"math"
	"sync"

	"dstack/internal/dstack"
)

// Why a request may not wait, or not any longer.
var (
	errQueueFull  = errors.New("too many requests wait for this run")
	errQueueBytes = errors.New("the requests that wait for this run are too large together")
	errStopping   = errors.New("the gateway is stopping")
)

// waitQueue holds the requests that wait for a replica, in the order of their
// arrival. Each new route table makes them try again in that order. A request
// that stops waiting is removed at once.
type waitQueue struct {
	mu          sync.Mutex
	queue       list.List // of *waiter
	sizes       map[dstack.RunID]int
	bodies      *budget                        // bytes of the bodies in memory, by run
	maxRequests int                            // of one run, for wait
	onChange    func(run dstack.RunID, by int) // called when a request begins or ceases to wait; may be nil
	stopped     bool
}

// waiter is a request that waits. Run, try, and the bytes of its body in
// memory are set by the caller.
type waiter struct {
	run     dstack.RunID
	bytes   int64
	try     func() bool // whether the wait is over; called under the queue's lock, must not block
	notify  func()      // called under the queue's lock when the wait is over; nil: done is closed
	body    reservation
	isOver  bool
	done    chan struct{}
	err     error
	element *list.Element
}

func newWaitQueue(maxRequests int, maxBytes int64) *waitQueue {
	return &waitQueue{
		sizes:       map[dstack.RunID]int{},
		bodies:      newBudget(budgetLimits{total: math.MaxInt64, perOwner: maxBytes, soleMayExceed: true}),
		maxRequests: maxRequests,
	}
}

// wait returns nil once try has returned true. It fails when the run has too
// many requests waiting, ctx ends, or the gateway stops. Try is called now and
// for each new table, by one goroutine at a time and never after wait has
// returned; it must not block.
func (q *waitQueue) wait(ctx context.Context, run dstack.RunID, try func() bool) error {
	w := &waiter{run: run, try: try}
	if waits, err := q.enqueue(w, q.maxRequests); !waits {
		return err
	}
	select {
	case <-w.done:
		return q.dequeue(w, nil)
	case <-ctx.Done():
		return q.dequeue(w, context.Cause(ctx))
	}
}

// enqueue adds a waiter unless its first try succeeds. If it returns true, wait
// for w.done, or for w.notify, and then call dequeue. The bodies of a run's waiters share a budget;
// a body that exceeds it may wait alone.
func (q *waitQueue) enqueue(w *waiter, maxRequests int) (waits bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.body.owner = string(w.run)
	switch {
	case w.try():
		return false, nil
	case q.stopped:
		return false, errStopping
	case q.sizes[w.run] >= maxRequests:
		return false, errQueueFull
	case !q.bodies.tryReserve(&w.body, w.bytes):
		return false, errQueueBytes
	}
	w.isOver, w.err = false, nil
	if w.notify == nil {
		w.done = make(chan struct{})
	}
	w.element = q.queue.PushBack(w)
	q.count(w.run, 1)
	return true, nil
}

// dequeue ends a wait. It returns nil if a try succeeded in the meantime, the
// queue's own error if it stopped, and err otherwise.
func (q *waitQueue) dequeue(w *waiter, err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.isOver {
		return w.err
	}
	q.remove(w)
	return err
}

// finish reports whether a wait is over, and if so, as dequeue, how it ended.
func (q *waitQueue) finish(w *waiter) (isOver bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return w.isOver, w.err
}

func (q *waitQueue) remove(w *waiter) {
	q.queue.Remove(w.element)
	q.bodies.releaseAll(&w.body)
	q.count(w.run, -1)
	w.isOver = true
	if w.notify != nil {
		w.notify()
		return
	}
	close(w.done)
}

func (q *waitQueue) count(run dstack.RunID, by int) {
	if q.sizes[run] += by; q.sizes[run] == 0 {
		delete(q.sizes, run)
	}
	if q.onChange != nil && run != "" {
		q.onChange(run, by)
	}
}

// wakeAll makes every waiting request try again.
func (q *waitQueue) wakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.queue.Front(); e != nil; {
		next := e.Next()
		if w := e.Value.(*waiter); w.try() {
			q.remove(w)
		}
		e = next
	}
}

// close fails all waiting requests, and all that come later.
func (q *waitQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	for e := q.queue.Front(); e != nil; e = q.queue.Front() {
		w := e.Value.(*waiter)
		w.err = errStopping
		q.remove(w)
	}
}

// isClosed reports whether no request may wait any more.
func (q *waitQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stopped
}

// queueSizes returns how many requests wait, by run.
func (q *waitQueue) queueSizes() map[dstack.RunID]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	sizes := make(map[dstack.RunID]int, len(q.sizes))
	for run, n := range q.sizes {
		sizes[run] = n
	}
	return sizes
}
