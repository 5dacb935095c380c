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

// Times of the wait for the lock. A server that was just killed may hold it for a moment.
const (
	lockTimeout      = 3 * time.Second
	lockPollInterval = 50 * time.Millisecond
)

// lockName is the name of the file that a server locks in its folder. It contains the URL of the server; see recordURL.
const lockName = "server.lock"

// lockFolder makes this process the only server that uses a folder, until the file is closed or the process ends in any way.
// A process that gets the open file from this one shares the lock. If another server uses the folder, the error is of kind
// Conflict.
func lockFolder(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	if err := lockFile(ctx, f); err != nil {
		_ = f.Close() // nothing was written
		return nil, &dstack.Error{
			Kind: dstack.Conflict, Message: "another dstack server already uses " + dir,
			Hint:  "replace it with --take-over, stop it first, or choose another folder for this server with DSTACK_SERVER_DIR",
			Cause: err,
		}
	}
	return f, nil
}

// lockFile locks a file. It retries for lockTimeout.
func lockFile(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	retry := time.NewTicker(lockPollInterval)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}
