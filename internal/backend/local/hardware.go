package local

import (
	"context"
	"runtime"

	"golang.org/x/sys/unix"

	"dstack/internal/dstack"
)

// detectHardware is what this machine has. Disk is what is free where our data lies.
func (l *Local) detectHardware(ctx context.Context) dstack.Hardware {
	has := dstack.Hardware{CPUs: runtime.NumCPU(), MemoryMiB: totalMemoryMiB(), DiskMiB: freeDiskMiB(l.Dir), GPUs: l.gpus.list(ctx)}
	if l.dockerAbout.CPUs > 0 && l.dockerAbout.MemoryMiB > 0 { // it may run in a smaller machine within this one
		has.CPUs, has.MemoryMiB = min(has.CPUs, l.dockerAbout.CPUs), min(has.MemoryMiB, l.dockerAbout.MemoryMiB)
	}
	return has
}

// freeDiskMiB looks at the closest folder above dir that exists; 0: unknown.
func freeDiskMiB(dir string) int64 {
	var fs unix.Statfs_t
	for _, d := range []string{dir, "/"} {
		if unix.Statfs(d, &fs) == nil {
			return int64(fs.Bavail) * int64(fs.Bsize) >> 20
		}
	}
	return 0
}
