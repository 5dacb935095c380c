package cloud

import (
	"context"
	"sync"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	listTimeout = 45 * time.Second // of one listing of all regions
	// failedListingAge is how long the failure of a listing is the answer to further calls.
	failedListingAge = 2 * time.Second
	// maxListingWait is how long after it began a listing is waited for by those who can go on without it. A cloud that
	// accepts calls and does not answer them must not hold up machines that run.
	maxListingWait = 4 * time.Second
)

// listings asks the provider for its machines, one call at a time, for all instances that are looked at meanwhile.
type listings struct {
	provider cloud.Provider
	ctx      context.Context // of the calls; close ends it
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu     sync.Mutex
	latest *listing
	calls  int // so far; tests read it
}

// listing is one call of the provider.
type listing struct {
	begunAt  time.Time
	ended    chan struct{} // closed when the fields below are set
	endedAt  time.Time
	machines []cloud.Machine
	err      error
}

func newListings(p cloud.Provider) *listings {
	l := &listings{provider: p}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *listings) close() {
	l.cancel()
	l.work.Wait()
}

// get returns a listing that ended at most maxAge ago, or after the time since if that is set. The caller does not change it.
func (l *listings) get(ctx context.Context, maxAge time.Duration, since time.Time) (*listing, error) {
	got := l.begin(maxAge, since)
	select {
	case <-got.ended:
		return got, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// getSoon is get that waits for a listing no longer than maxListingWait after that began. The listing goes on.
func (l *listings) getSoon(ctx context.Context, maxAge time.Duration) (*listing, error) {
	got := l.begin(maxAge, time.Time{})
	wait := time.NewTimer(max(time.Until(got.begunAt.Add(maxListingWait)), 0))
	defer wait.Stop()
	if got.hasEnded() {
		return got, got.err
	}
	select {
	case <-got.ended:
		return got, got.err
	case <-wait.C:
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the cloud has not listed its machines within " + maxListingWait.String()}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin returns the latest listing if it is new enough, or else a new one. A call that is under way counts as new, unless it
// began before since.
func (l *listings) begin(maxAge time.Duration, since time.Time) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last := l.latest; last != nil && !last.begunAt.Before(since) {
		if !last.hasEnded() {
			return last
		}
		age := now.Sub(last.endedAt) // one that takes long would never be new enough by its begin
		if last.err == nil && age <= maxAge || last.err != nil && age <= failedListingAge {
			return last
		}
	}
	next := &listing{begunAt: now, ended: make(chan struct{})}
	l.latest = next
	l.calls++
	l.work.Go(func() {
		defer close(next.ended)
		ctx, cancel := context.WithTimeout(l.ctx, listTimeout)
		defer cancel()
		next.machines, next.err = l.provider.ListMachines(ctx)
		next.endedAt = time.Now()
	})
	return next
}

func (g *listing) hasEnded() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}
