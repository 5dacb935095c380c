package gateway

import (
	"container/list"
	"context"
	"sync"
	"time"

	"dstack/internal/dstack"
)

const (
	readFree  = 16 << 10 // bytes of each body that nobody waits for: most prompts are no longer
	readAhead = 1 << 20  // bytes that are taken at once where a body says that it is as long
	readWait  = 10 * time.Second
)

// reading bounds the memory of bodies that are read and not placed or held
// yet. Those beyond it wait in the order in which they came. One that cannot
// go on may, beyond all that there is, where no other does: so there is an end.
type reading struct {
	mu     sync.Mutex
	left   int64
	queue  list.List // of *reader
	beyond bool      // one reads beyond the bound
}

// reader is one request that reads.
type reader struct {
	taken  int64
	beyond bool // it is the one whose bytes do not count
	wants  int64
	ready  chan struct{}
}

func newReading(most int64) *reading { return &reading{left: most} }

// take waits until n bytes more may be read, not for ever.
func (r *reading) take(ctx context.Context, who *reader, n int64) error {
	who.wants, who.ready = n, make(chan struct{})
	r.mu.Lock()
	place := r.queue.PushBack(who)
	if who.beyond {
		r.queue.MoveToFront(place)
	}
	r.admit()
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	select {
	case <-who.ready:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-who.ready: // only just
		return nil
	default:
		r.queue.Remove(place)
		r.admit()
		return context.Cause(ctx)
	}
}

// admit lets those at the front go on.
func (r *reading) admit() {
	for e := r.queue.Front(); e != nil; e = r.queue.Front() {
		who := e.Value.(*reader)
		switch {
		case who.beyond:
		case r.left >= who.wants:
			r.left -= who.wants
			who.taken += who.wants
		case !r.beyond:
			r.beyond, who.beyond = true, true
			r.left += who.taken
			who.taken = 0
		default:
			return
		}
		r.queue.Remove(e)
		close(who.ready)
	}
}

// end gives back all that a request has taken. It may be repeated.
func (r *reading) end(who *reader) {
	if who.taken == 0 && !who.beyond {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if who.beyond {
		r.beyond = false
	}
	r.left += who.taken
	who.taken, who.beyond = 0, false
	r.admit()
}

// readOn makes sure that the body may take n bytes of memory, or as many as it
// returns: where it says that it is longer, those are more.
func (x *exchange) readOn(n int64) (int64, error) {
	if n <= readFree+x.allowed {
		return n, nil
	}
	n = max(n, min(x.r.ContentLength+1, readAhead))
	if err := x.g.reading.take(x.ctx, &x.reader, n-readFree-x.allowed); err != nil {
		if x.ctx.Err() != nil {
			return 0, x.ctx.Err()
		}
		return 0, &refusal{retry: 1, words: words{Kind: dstack.Unavailable,
			Message: "the gateway reads too many large requests at the moment", Hint: "try again"}}
	}
	x.allowed = n - readFree
	return n, nil
}
