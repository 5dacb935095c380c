package gateway

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
)

const (
	readFree  = 16 << 10 // bytes of each body that nobody waits for: most prompts are no longer
	readAhead = 1 << 20  // bytes that are taken at once where a body says that it is as long
	readWait  = 10 * time.Second
	readPace  = 64 << 10 // bytes a second that one sends at least for which others may have to wait
)

// reading bounds the memory of bodies that are read and not placed or held
// yet. Those beyond it wait in the order in which they came. One that cannot
// go on may, beyond all that there is, where no other does: so there is an end.
// Nobody waits for one whose project reads as much as one may.
type reading struct {
	mu     sync.Mutex
	left   int64
	share  int64            // of one project
	taken  map[string]int64 // by each
	queue  list.List        // of *reader
	beyond bool             // one reads beyond the bound
}

// reader is one request that reads.
type reader struct {
	project string
	taken   int64
	beyond  bool // it is the one whose bytes do not count
	wants   int64
	ready   chan struct{}
}

func newReading(most, share int64) *reading {
	return &reading{left: most, share: share, taken: map[string]int64{}}
}

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

// admit lets those at the front go on, of each project in their order.
func (r *reading) admit() {
	var full []string // projects the first of which may not
	for e := r.queue.Front(); e != nil; {
		who, next := e.Value.(*reader), e.Next()
		switch {
		case slices.Contains(full, who.project) && !who.beyond:
			e = next
			continue
		case who.beyond:
		case r.left >= who.wants && r.shares(who):
			r.count(who, who.wants)
		case !r.beyond:
			r.beyond, who.beyond = true, true
			r.count(who, -who.taken)
		case !r.shares(who):
			full, e = append(full, who.project), next
			continue
		default:
			return
		}
		r.queue.Remove(e)
		close(who.ready)
		e = next
	}
}

// shares says whether a request's project may read what it wants. One that
// reads nothing else may.
func (r *reading) shares(who *reader) bool {
	all := r.taken[who.project]
	return all == who.taken || all+who.wants <= r.share
}

// count notes that a request has n bytes more.
func (r *reading) count(who *reader, n int64) {
	r.left -= n
	who.taken += n
	if r.taken[who.project] += n; r.taken[who.project] == 0 {
		delete(r.taken, who.project)
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
		r.beyond, who.beyond = false, false
	}
	r.count(who, -who.taken)
	r.admit()
}

// readOn makes sure that the body may take n bytes of memory, or as many as it
// returns: where it says that it is longer, those are more.
func (x *exchange) readOn(n int64) (int64, error) {
	if n <= readFree+x.allowed {
		return n, nil
	}
	n = max(n, min(x.r.ContentLength+1, readAhead))
	x.reader.project = x.means.Project
	asked := time.Now()
	if err := x.g.reading.take(x.ctx, &x.reader, n-readFree-x.allowed); err != nil {
		if x.ctx.Err() != nil {
			return 0, x.ctx.Err()
		}
		return 0, &refusal{retry: 1, words: words{Kind: dstack.Unavailable,
			Message: "the gateway reads too many large requests at the moment", Hint: "try again"}}
	}
	if x.paceFrom.IsZero() {
		x.paceFrom = asked
	}
	x.paceFrom = x.paceFrom.Add(time.Since(asked)) // the wait was not the client's fault
	x.allowed = n - readFree
	return n, nil
}

// keepPace makes a body for which others may have to wait come at some pace,
// the first n bytes of which are there.
func (x *exchange) keepPace(n int) {
	if !x.paceFrom.IsZero() {
		x.in.setPaceDeadline(x.paceFrom.Add(x.g.limits.MaxLag + time.Duration(n)*time.Second/readPace))
	}
}
