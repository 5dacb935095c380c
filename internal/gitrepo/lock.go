package gitrepo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dstack/internal/dstack"
)

const (
	maxFetches        = 4 // at once
	maxFetchesPerUser = 2
)

// seats is how many may hold something at once.
type seats struct {
	holders chan struct{} // has one for each holder
	users   int           // who hold one or wait for one
}

// lock waits for the lock of a folder. The caller unlocks it, once or more.
func (c *Cache) lock(ctx context.Context, folder string) (unlock func(), err error) {
	return c.takeSeat(ctx, folder, 1)
}

// takeSlot waits until the user of a source may use the network, at most for a time. The
// caller gives the slot back.
func (c *Cache) takeSlot(ctx context.Context, s Source, timeout time.Duration) (release func(), err error) {
	busy := &dstack.Error{Kind: dstack.Unavailable, Message: "the server is busy reading other repositories", Hint: "try again",
		Cause: fmt.Errorf("%w: no slot was free within %s", ErrServer, timeout)}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, busy)
	defer cancel()
	own, err := c.takeSeat(ctx, "user "+string(s.User), maxFetchesPerUser)
	if err != nil {
		return nil, err
	}
	all, err := c.takeSeat(ctx, "all", maxFetches)
	if err != nil {
		own()
		return nil, err
	}
	return func() { all(); own() }, nil
}

// takeSeat waits for one of count seats with a name. The caller leaves it, once or more.
func (c *Cache) takeSeat(ctx context.Context, name string, count int) (leave func(), err error) {
	c.mu.Lock()
	s := c.seats[name]
	if s == nil {
		s = &seats{holders: make(chan struct{}, count)}
		c.seats[name] = s
	}
	s.users++
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(c.seats, name)
		}
	}
	leave = sync.OnceFunc(func() { <-s.holders; forget() })
	select {
	case s.holders <- struct{}{}:
		return leave, nil
	default:
	}
	select {
	case s.holders <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		forget()
		return nil, context.Cause(ctx)
	}
}
