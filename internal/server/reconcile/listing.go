package reconcile

import (
	"context"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dstack"
)

// maxListingAge is how long a list of machines is used for other instances. It is far
// below the time that lists of clouds lag behind.
const maxListingAge = 200 * time.Millisecond

// listings reads the machines of each backend, one call at a time for each, for all
// instances that are looked at meanwhile. A backend that fails or does not answer in time
// concerns its own instances alone.
type listings struct {
	backends *backend.Set
	timeout  time.Duration

	mu     sync.Mutex
	latest map[string]*listing // by backend
}

// listing is one call to a backend.
type listing struct {
	began time.Time
	read  func() (map[dstack.InstanceID]dstack.Machine, error) // the first call asks, the others wait for its answer
	ended chan struct{}
}

func newListings(backends *backend.Set, timeout time.Duration) *listings {
	return &listings{backends: backends, timeout: timeout, latest: map[string]*listing{}}
}

// findMachine returns the backend with a key, and the machine of an instance as
// the backend listed it; nil: the backend does not list it. If the listing
// failed, the backend is returned together with the error: its engines may answer
// nevertheless.
func (l *listings) findMachine(
	ctx context.Context, key string, id dstack.InstanceID,
) (backend.Backend, *dstack.Machine, error) {
	b, err := l.backends.Get(key)
	if err != nil {
		return nil, nil, err
	}
	machines, err := l.listingOf(ctx, key, b).read()
	if err != nil {
		return b, nil, err
	}
	if m, ok := machines[id]; ok {
		return b, &m, nil
	}
	return b, nil, nil
}

// listingOf returns the call of a backend that is under way or has just begun, or a new one.
func (l *listings) listingOf(ctx context.Context, key string, b backend.Backend) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last := l.latest[key]; last != nil && (now.Sub(last.began) < maxListingAge || !last.hasEnded()) {
		return last
	}
	next := &listing{began: now, ended: make(chan struct{})}
	next.read = sync.OnceValues(func() (map[dstack.InstanceID]dstack.Machine, error) {
		defer close(next.ended)
		ctx, cancel := context.WithTimeout(ctx, l.timeout)
		defer cancel()
		return b.Machines(ctx)
	})
	l.latest[key] = next
	return next
}

func (c *listing) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
