package kubeclient

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/loop"
)

// MirrorOptions choose what a Mirror copies.
type MirrorOptions struct {
	Selection
	// IsOurs says that what the mirror holds runs for us. While it holds objects, the client asks the API server every few
	// seconds whether it lives.
	IsOurs bool
}

// Mirror is a copy of the objects of one resource, which follows the API server by an own list and watch. Several
// goroutines may use it at once. Its task and those of its client have to run.
type Mirror[T any] struct {
	client   *Client
	resource Resource[T]
	options  MirrorOptions
	changed  loop.Broadcast
	failures loop.RepeatFilter
	pause    pauses

	mu         sync.Mutex
	objects    map[types.NamespacedName]*T
	sorted     []*T // of objects; nil: to be made
	listedAt   time.Time
	isWatching bool
	err        error
}

// NewMirror returns a mirror that is empty until its task has listed the objects.
func NewMirror[T any](c *Client, r Resource[T], o MirrorOptions) *Mirror[T] {
	m := &Mirror[T]{client: c, resource: r, options: o}
	if o.IsOurs {
		c.health.addInterest(func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.objects) > 0
		})
	}
	return m
}

// Tasks returns the task that follows the API server. Errors do not end it.
func (m *Mirror[T]) Tasks() []loop.Task {
	name := "mirror of the " + m.resource.Word + "s of " + m.client.name
	return []loop.Task{
		loop.Repeat(name, nil, m.follow),
		{Name: name + " (health)", Run: m.passHealthOn},
	}
}

// passHealthOn wakes those who wait for a change when the API server goes away or comes back.
func (m *Mirror[T]) passHealthOn(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.client.HealthChanged():
			m.changed.Notify()
		}
	}
}

// List returns all objects, ordered by namespace and name. They belong to the mirror: callers must not change them.
func (m *Mirror[T]) List() []*T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sorted == nil {
		m.sorted = make([]*T, 0, len(m.objects))
		for _, object := range m.objects {
			m.sorted = append(m.sorted, object)
		}
		slices.SortFunc(m.sorted, func(a, b *T) int {
			x, y := metadata(a), metadata(b)
			return cmp.Or(cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
		})
	}
	return slices.Clip(m.sorted)
}

// Get returns the object with a name, in the client's namespace if the resource has namespaces. The caller must not change
// it.
func (m *Mirror[T]) Get(name string) (*T, bool) {
	key := types.NamespacedName{Namespace: m.client.namespace, Name: name}
	if m.resource.IsClusterWide {
		key.Namespace = ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[key]
	return object, ok
}

// Changed returns a channel that is closed when an object has changed, or when Err may have. Call it before reading.
func (m *Mirror[T]) Changed() <-chan struct{} { return m.changed.Changed() }

// FreshAt returns the latest time at which the mirror was known to be complete: what List returns is not older. It is zero
// before the first list. While the API server answers and something of ours runs, it is a few seconds ago at most.
func (m *Mirror[T]) FreshAt() time.Time {
	answered, _ := m.client.Health()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isWatching && answered.After(m.listedAt) {
		return answered
	}
	return m.listedAt
}

// Err returns why the mirror does not follow the API server now; nil if it does, or has not tried yet.
func (m *Mirror[T]) Err() error {
	_, unhealthy := m.client.Health()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	return unhealthy
}

// WaitUntilListed waits for the first list. If ctx ends first, it returns the error that keeps the mirror from listing.
func (m *Mirror[T]) WaitUntilListed(ctx context.Context) error {
	for {
		changed := m.Changed()
		if !m.FreshAt().IsZero() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return cmp.Or(m.Err(), ctx.Err())
		}
	}
}

// follow lists the objects, and watches them until the watch ends. It returns the pause before the next list.
func (m *Mirror[T]) follow(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	err := m.listAndWatch(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	m.setWatching(false, err)
	m.log(err)
	if IsAway(err) {
		m.client.health.wake.Signal()
	}
	pause := m.pause.next(MeaningOf(err), time.Since(began))
	woken := m.client.HealthChanged()
	return 0, loop.SleepUntil(ctx, pause, woken)
}

// log writes an error that is not the usual end of a watch.
func (m *Mirror[T]) log(err error) {
	key := m.resource.Plural
	if err == nil || MeaningOf(err) == VersionGone {
		m.failures.Forget(key)
		return
	}
	if skipped, ok := m.failures.Admit(key, err.Error(), time.Now()); ok {
		slog.Warn("cannot follow the "+m.resource.Word+"s of a cluster", "cluster", m.client.name, "err", err, "not_logged", skipped)
	}
}

func (m *Mirror[T]) setWatching(isWatching bool, err error) {
	m.mu.Lock()
	m.isWatching, m.err = isWatching, err
	m.mu.Unlock()
	m.changed.Notify()
}
