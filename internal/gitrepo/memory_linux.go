package gitrepo

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// limitMemory limits the memory of a process that files do not back. 0: no limit.
func limitMemory(pid int, bytes uint64) error {
	if bytes == 0 {
		return nil
	}
	err := unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes}, nil)
	if err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: it has ended
		return fmt.Errorf("limit the memory of git: %w", err)
	}
	return nil
}
