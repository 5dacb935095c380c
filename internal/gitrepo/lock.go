package gitrepo

import (
	"context"
	"sync"
)

// lock waits for the lock of a folder. The caller unlocks it, once or more.
func (c *Cache) lock(ctx context.Context, folder string) (unlock func(), err error) {
	c.mu.Lock()
	l := c.locks[folder]
	if l == nil {
		l = &folderLock{holder: make(chan struct{}, 1)}
		c.locks[folder] = l
	}
	l.users++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(c.locks, folder)
		}
	}
	select {
	case l.holder <- struct{}{}:
		return sync.OnceFunc(func() { <-l.holder; leave() }), nil
	default:
	}
	select {
	case l.holder <- struct{}{}:
		return sync.OnceFunc(func() { <-l.holder; leave() }), nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
