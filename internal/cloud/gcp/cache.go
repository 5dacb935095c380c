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
	value T
	until time.Time
}

// get returns the value, read anew if it is older than factsAge. Errors are not kept.
func (c *cached[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	value, err := read(ctx)
	if err == nil {
		c.value, c.until = value, time.Now().Add(factsAge)
	}
	return value, err
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
