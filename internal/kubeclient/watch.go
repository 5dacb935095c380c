package kubeclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// The pauses between a watch that ended and the next list. Every end of a watch is followed by one: an API server that ends
// each watch at once would be asked thousands of times otherwise.
const (
	minPause     = 200 * time.Millisecond
	maxPause     = 4 * time.Second
	refusedPause = 30 * time.Second // while the account has no right, or the cluster no such objects
	steadyWatch  = 30 * time.Second // a watch that lived longer starts the pauses anew
)

// A watch is ended by the API server after a time between these, so that a right that was taken away shows.
const (
	minWatch = 30 * time.Minute
	maxWatch = time.Hour
)

// pauses computes growing pauses.
type pauses struct{ last time.Duration }

func (p *pauses) next(m Meaning, lived time.Duration) time.Duration {
	switch {
	case m == NoRight || m == NotServed:
		return refusedPause
	case lived >= steadyWatch, p.last == 0:
		p.last = minPause
	default:
		p.last = min(2*p.last, maxPause)
	}
	return p.last + rand.N(p.last/4)
}

// listAndWatch copies the objects and follows their changes. It returns nil if the API server ended the watch as asked.
func (m *Mirror[T]) listAndWatch(ctx context.Context) error {
	began := time.Now()
	objects, version, err := listAll(ctx, m.client, m.resource, m.options.Selection)
	if err != nil {
		return err
	}
	m.replaceAll(objects, began)
	watcher, err := m.openWatch(ctx, version)
	if err != nil {
		return m.client.newError(err, request{verb: "watch", word: m.resource.Word})
	}
	defer watcher.Stop()
	m.setWatching(true, nil)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-watcher.ResultChan():
			if !ok {
				return nil
			}
			if err := m.applyEvent(event); err != nil {
				return m.client.newError(err, request{verb: "watch", word: m.resource.Word})
			}
		}
	}
}

// openWatch limits the time until the API server answers, but not the watch. client-go tries again by itself after a
// connection that ends without an answer.
func (m *Mirror[T]) openWatch(ctx context.Context, version string) (watch.Interface, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	seconds := int64((minWatch + rand.N(maxWatch-minWatch)) / time.Second)
	late := time.AfterFunc(maxPause, func() { cancel(context.DeadlineExceeded) })
	watcher, err := m.resource.client(m.client).Watch(ctx, metav1.ListOptions{LabelSelector: m.options.Labels,
		FieldSelector: m.options.Fields, ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
	late.Stop()
	if err != nil {
		err = errors.Join(err, context.Cause(ctx))
		cancel(nil)
		return nil, err
	}
	return cancellingWatch{watcher, func() { cancel(nil) }}, nil
}

// cancellingWatch is a watch whose context ends with it.
type cancellingWatch struct {
	watch.Interface
	cancel func()
}

func (w cancellingWatch) Stop() {
	w.Interface.Stop()
	w.cancel()
}

// replaceAll makes objects the content of the mirror.
func (m *Mirror[T]) replaceAll(objects []*T, listedAt time.Time) {
	content := make(map[types.NamespacedName]*T, len(objects))
	for _, object := range objects {
		content[keyOf(object)] = object
	}
	m.mu.Lock()
	wasEmpty := len(m.objects) == 0
	m.objects, m.sorted, m.listedAt, m.isWatching = content, nil, listedAt, false
	m.mu.Unlock()
	m.notify(wasEmpty && len(content) > 0)
}

func keyOf[T any](object *T) types.NamespacedName {
	meta := metadata(object)
	return types.NamespacedName{Namespace: meta.GetNamespace(), Name: meta.GetName()}
}

// applyEvent changes the mirror. An error ends the watch, as it does for the API server.
func (m *Mirror[T]) applyEvent(event watch.Event) error {
	switch event.Type {
	case watch.Error:
		return apierrors.FromObject(event.Object)
	case watch.Added, watch.Modified, watch.Deleted:
	default:
		return nil // a bookmark
	}
	u, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return errors.New("the API server sent an event without an object")
	}
	object, err := m.resource.decode(u)
	if err != nil {
		return err
	}
	m.mu.Lock()
	wasEmpty := len(m.objects) == 0
	if key := keyOf(object); event.Type == watch.Deleted {
		delete(m.objects, key)
	} else {
		m.objects[key] = object
	}
	m.sorted = nil
	isFirst := wasEmpty && len(m.objects) > 0
	m.mu.Unlock()
	m.notify(isFirst)
	return nil
}

// notify wakes those who wait for a change. With the first object of ours, the health of the API server begins to matter.
func (m *Mirror[T]) notify(isFirst bool) {
	m.changed.Notify()
	if isFirst && m.options.IsOurs {
		m.client.health.wake.Signal()
	}
}
