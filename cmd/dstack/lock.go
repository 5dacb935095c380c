package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"dstack/internal/dstack"
)

// lockFolder makes this the only server on a folder, until unlock or the end
// of the process, however it ends.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "server.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, &dstack.Error{
			Kind: dstack.Conflict, Message: "another dstack server already uses " + dir,
			Hint: "stop it first, or give this one a folder of its own with DSTACK_SERVER_DIR", Cause: err,
		}
	}
	return func() { _ = f.Close() }, nil
}
