package reconcile

import (
	"context"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dstack"
)

// listings reads the machines of each backend once, for all instances of a
// pass. A backend that fails or does not answer in time concerns its own
// instances alone.
type listings struct {
	backends *backend.Set
	timeout  time.Duration

	mu        sync.Mutex
	byBackend map[string]listMachines
}

type listMachines func() (map[dstack.InstanceID]dstack.Machine, error)

func newListings(backends *backend.Set, timeout time.Duration) *listings {
	return &listings{backends: backends, timeout: timeout, byBackend: map[string]listMachines{}}
}

// findMachine returns the backend with a key, and the machine of an instance as
// the backend listed it in this pass; nil: the backend does not list it. If the
// listing failed, the backend is returned together with the error: its engines
// may answer nevertheless.
func (l *listings) findMachine(
	ctx context.Context, key string, id dstack.InstanceID,
) (backend.Backend, *dstack.Machine, error) {
	b, err := l.backends.Get(key)
	if err != nil {
		return nil, nil, err
	}
	machines, err := l.of(ctx, key, b)()
	if err != nil {
		return b, nil, err
	}
	if m, ok := machines[id]; ok {
		return b, &m, nil
	}
	return b, nil, nil
}

// of returns the function that lists the machines of a backend: the first call
// asks the backend, the others wait for its answer.
func (l *listings) of(ctx context.Context, key string, b backend.Backend) listMachines {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.byBackend[key]
	if list == nil {
		list = sync.OnceValues(func() (map[dstack.InstanceID]dstack.Machine, error) {
			ctx, cancel := context.WithTimeout(ctx, l.timeout)
			defer cancel()
			return b.Machines(ctx)
		})
		l.byBackend[key] = list
	}
	return list
}
