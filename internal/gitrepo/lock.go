package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
)

const (
	maxFetches        = 4 // at once
	maxFetchesPerUser = 2
)

// inUseName is the name of the file that each process locks, together with others, while
// it uses the folder.
const inUseName = "in-use.lock"

// claimFolder locks the folder, together with a process that finishes what it began. It
// empties the temporary folder if there is no such process.
func (c *Cache) claimFolder() (err error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if c.inUse, err = os.OpenFile(filepath.Join(c.dir, inUseName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	err = syscall.Flock(int(c.inUse.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = os.RemoveAll(c.tempDir())
	} else if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	if err == nil {
		err = syscall.Flock(int(c.inUse.Fd()), syscall.LOCK_SH)
	}
	if err != nil {
		return errors.Join(err, c.inUse.Close())
	}
	return nil
}

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
