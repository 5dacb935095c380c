package gateway

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"
)

// budget limits the bytes that reservations hold: all together, and those of
// one owner, which is a project or a run. All methods may be called at once.
type budget struct {
	limits budgetLimits

	mu        sync.Mutex
	used      int64
	byOwner   map[string]int64
	waiting   list.List // of *reservation, first in, first out
	overdrawn bool      // one reservation exceeds the total
}

// budgetLimits are the rules of a budget.
type budgetLimits struct {
	total    int64 // bytes of all reservations
	perOwner int64 // bytes of the reservations of one owner

	// Of the total, extra bytes are for small reservations alone, which have at
	// most small bytes. One owner gets half of them beyond perOwner.
	small, extra int64

	soleMayExceed bool          // the only reservation of an owner may exceed perOwner
	maxWait       time.Duration // of reserve
}

// reservation is what one request holds of a budget. Its owner is set before
// its first use; the other fields belong to the budget.
type reservation struct {
	owner     string
	bytes     int64
	overdrawn bool // it exceeds the total: its bytes are not counted
	wanted    int64
	granted   chan struct{} // closed once the wanted bytes are granted
}

func newBudget(limits budgetLimits) *budget {
	return &budget{limits: limits, byOwner: map[string]int64{}}
}

// tryReserve adds n bytes to a reservation, or nothing if they exceed a limit
// or others wait.
func (b *budget) tryReserve(r *reservation, n int64) bool {
	if n == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting.Len() > 0 || !b.fitsTotal(r, n) || !b.fitsOwner(r, n) {
		return false
	}
	b.add(r, n)
	return true
}

// reserve waits until n more bytes are granted. Reservations over the limits
// wait first in, first out; those of an owner over its limit do not delay other
// owners. To avoid deadlock, one reservation at a time may exceed the total: it
// gets all that it asks for until it is released.
func (b *budget) reserve(ctx context.Context, r *reservation, n int64) error {
	r.wanted, r.granted = n, make(chan struct{})
	b.mu.Lock()
	element := b.waiting.PushBack(r)
	if r.overdrawn {
		b.waiting.MoveToFront(element)
	}
	b.grantWaiting()
	b.mu.Unlock()
	select {
	case <-r.granted:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, b.limits.maxWait)
	defer cancel()
	select {
	case <-r.granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-r.granted: // between the end of the wait and the lock
		return nil
	default:
		b.waiting.Remove(element)
		b.grantWaiting()
		return context.Cause(ctx)
	}
}

// grantWaiting grants what fits, from the front of the queue.
func (b *budget) grantWaiting() {
	var blocked []string // owners whose first reservation in the queue does not fit
	for e := b.waiting.Front(); e != nil; {
		r, next := e.Value.(*reservation), e.Next()
		switch {
		case slices.Contains(blocked, r.owner) && !r.overdrawn:
			e = next
			continue
		case r.overdrawn:
		case b.fitsTotal(r, r.wanted) && b.fitsOwner(r, r.wanted):
			b.add(r, r.wanted)
		case !b.overdrawn:
			b.overdrawn, r.overdrawn = true, true
			b.add(r, -r.bytes)
		case !b.fitsOwner(r, r.wanted):
			blocked, e = append(blocked, r.owner), next
			continue
		default:
			return
		}
		b.waiting.Remove(e)
		close(r.granted)
		e = next
	}
}

func (b *budget) fitsTotal(r *reservation, n int64) bool {
	total := b.limits.total
	if !b.isSmall(r, n) {
		total -= b.limits.extra
	}
	return n <= total-b.used
}

func (b *budget) fitsOwner(r *reservation, n int64) bool {
	all, perOwner := b.byOwner[r.owner], b.limits.perOwner
	if b.limits.soleMayExceed && all == r.bytes {
		return true
	}
	if b.isSmall(r, n) {
		perOwner += b.limits.extra / 2
	}
	return all+n <= perOwner
}

func (b *budget) isSmall(r *reservation, n int64) bool { return r.bytes+n <= b.limits.small }

func (b *budget) add(r *reservation, n int64) {
	b.used += n
	r.bytes += n
	if b.byOwner[r.owner] += n; b.byOwner[r.owner] == 0 {
		delete(b.byOwner, r.owner)
	}
}

// release gives n bytes of a reservation back.
func (b *budget) release(r *reservation, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(r, -n)
	b.grantWaiting()
}

// releaseAll gives all of a reservation back. It may be repeated.
func (b *budget) releaseAll(r *reservation) {
	if r.bytes == 0 && !r.overdrawn {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.overdrawn {
		b.overdrawn, r.overdrawn = false, false
	}
	b.add(r, -r.bytes)
	b.grantWaiting()
}
