package local

import "golang.org/x/sys/unix"

// totalMemoryMiB returns the memory of this machine; 0: unknown.
func totalMemoryMiB() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) >> 20
}
