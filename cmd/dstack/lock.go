package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"dstack/internal/dstack"
)

// A server that was killed a moment ago may still be on its way out.
const (
	lockTimeout      = 3 * time.Second
	lockPollInterval = 50 * time.Millisecond
)

// lockFolder makes this the only server on a folder, until unlock or the end
// of the process, however it ends.
func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "server.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	if err := lockFile(ctx, f); err != nil {
		_ = f.Close() // nothing was written
		return nil, &dstack.Error{
			Kind: dstack.Conflict, Message: "another dstack server already uses " + dir,
			Hint: "stop it first, or give this one a folder of its own with DSTACK_SERVER_DIR", Cause: err,
		}
	}
	return func() { _ = f.Close() }, nil
}

// lockFile tries for lockTimeout.
func lockFile(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	again := time.NewTicker(lockPollInterval)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}
