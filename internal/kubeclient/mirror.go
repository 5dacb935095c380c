package kubeclient

import (
	"context"
	"time"

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
// goroutines may use it at once. Its task has to run.
type Mirror[T any] struct {
	client   *Client
	resource Resource[T]
	options  MirrorOptions
	changed  loop.Broadcast
}

// NewMirror returns a mirror that is empty until its task has listed the objects.
func NewMirror[T any](c *Client, r Resource[T], o MirrorOptions) *Mirror[T] {
	return &Mirror[T]{client: c, resource: r, options: o}
}

// Tasks returns the task that follows the API server. Errors do not end it.
func (m *Mirror[T]) Tasks() []loop.Task { return nil }

// List returns all objects, ordered by namespace and name. They belong to the mirror: callers must not change them.
func (m *Mirror[T]) List() []*T { return nil }

// Get returns the object with a name; the caller must not change it.
func (m *Mirror[T]) Get(name string) (*T, bool) { return nil, false }

// Changed returns a channel that is closed when objects have changed, or when Err or Stalled may have.
func (m *Mirror[T]) Changed() <-chan struct{} { return m.changed.Changed() }

// FreshAt returns the latest time at which the mirror was known to be complete: what List returns is not older than that.
// It is zero before the first list. While the API server answers, it is at most a few seconds ago.
func (m *Mirror[T]) FreshAt() time.Time { return time.Time{} }

// Err returns why the mirror cannot follow the API server now, or nil.
func (m *Mirror[T]) Err() error { return nil }

// WaitUntilListed waits for the first list, or for ctx. It returns the error that keeps it from listing, if ctx ends first.
func (m *Mirror[T]) WaitUntilListed(ctx context.Context) error { return nil }
