package certificate

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/loop"
)

// The lifetime of a lock, after which it ends if its owner died, and how often its
// owner extends it.
const (
	lockLifetime = 15 * time.Second
	lockInterval = 4 * time.Second
)

// errLocked says that another process does the work now.
var errLocked = errors.New("another process has the lock")

// errLockLost says that the lock could not be extended, so that another process may have it.
var errLockLost = errors.New("the lock was lost")

// withLock calls work while it has a lock, and ends the context of work when it loses it. It returns errLocked at once
// if somebody else has the lock.
func withLock(ctx context.Context, storage Storage, name string, work func(context.Context) error) error {
	owner := rand.Text()
	switch ok, err := storage.TryLock(ctx, name, owner, lockLifetime); {
	case err != nil:
		return err
	case !ok:
		return errLocked
	}
	defer storage.Unlock(context.WithoutCancel(ctx), name, owner) //nolint:errcheck // it ends by itself
	group, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	group.Go(func() error {
		defer stop()
		return work(ctx)
	})
	group.Go(func() error { return extendLock(ctx, storage, name, owner) })
	return group.Wait()
}

// extendLock extends a lock until ctx ends. It fails when the lock ended.
func extendLock(ctx context.Context, storage Storage, name, owner string) error {
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	end := time.Now().Add(lockLifetime)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		ok, err := storage.TryLock(ctx, name, owner, lockLifetime)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && ok:
			end = time.Now().Add(lockLifetime)
		case err == nil || time.Now().After(end):
			return errLockLost
		}
	}
}

// waitForLock calls work as soon as no other process has the lock.
func waitForLock(ctx context.Context, storage Storage, name string, work func(context.Context) error) error {
	for {
		err := withLock(ctx, storage, name, work)
		if !errors.Is(err, errLocked) {
			return err
		}
		if err := loop.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
