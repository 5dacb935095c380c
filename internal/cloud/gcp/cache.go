package gcp

import (
	"context"
	"sync"
	"time"
)

// factsAge is how long facts of the cloud that seldom change are used: subnets, zones and types of machines.
const factsAge = time.Hour

// cached keeps one value for a time. Callers at once wait for the same request.
type cached[T any] struct {
	mu    sync.Mutex
	turn  lock // whose holder reads the value
	value T
	until time.Time
}

// get returns the value, read anew if it is older than factsAge. Errors are not kept.
func (c *cached[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	if value, ok := c.current(); ok {
		return value, nil
	}
	if err := c.turn.acquire(ctx); err != nil {
		var none T
		return none, &connectionError{what: "read facts of the cloud", cause: err}
	}
	defer c.turn.release()
	if value, ok := c.current(); ok {
		return value, nil
	}
	value, err := read(ctx)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.value, c.until = value, time.Now().Add(factsAge)
	}
	return value, err
}

// current returns the value that is kept.
func (c *cached[T]) current() (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == nil {
		c.turn = newLock()
	}
	return c.value, time.Now().Before(c.until)
}

// forget makes the next get read the value anew.
func (c *cached[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
}

// cachedByKey keeps one value for each key for a time.
type cachedByKey[T any] struct {
	mu     sync.Mutex
	values map[string]*cached[T]
}

// get returns the value of a key, as cached does.
func (c *cachedByKey[T]) get(ctx context.Context, key string, read func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	if c.values == nil {
		c.values = map[string]*cached[T]{}
	}
	entry := c.values[key]
	if entry == nil {
		entry = &cached[T]{}
		c.values[key] = entry
	}
	c.mu.Unlock()
	return entry.get(ctx, read)
}

// lock is a mutex whose waiters may give up.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// acquire waits for the lock, or until ctx ends.
func (l lock) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) release() { <-l }
