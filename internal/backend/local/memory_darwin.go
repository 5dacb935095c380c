package local

import "golang.org/x/sys/unix"

// totalMemoryMiB returns the memory of this machine; 0: unknown.
func totalMemoryMiB() int64 {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(bytes >> 20)
}
