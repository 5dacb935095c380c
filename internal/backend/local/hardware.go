package local

import (
	"context"
	"runtime"

	"golang.org/x/sys/unix"

	"dstack/internal/dstack"
)

// detectHardware returns the hardware of this machine. DiskMiB is the free space of the
// file system that holds the server's folder.
func (l *Local) detectHardware(ctx context.Context) dstack.Hardware {
	has := dstack.Hardware{CPUs: runtime.NumCPU(), Arch: cpuArchs[runtime.GOARCH], MemoryMiB: totalMemoryMiB(), DiskMiB: freeDiskMiB(l.Dir), GPUs: l.gpus.list(ctx).GPUs}
	if l.dockerAbout.CPUs > 0 && l.dockerAbout.MemoryMiB > 0 { // Docker may run in a smaller virtual machine
		has.CPUs, has.MemoryMiB = min(has.CPUs, l.dockerAbout.CPUs), min(has.MemoryMiB, l.dockerAbout.MemoryMiB)
	}
	return has
}

// cpuArchs maps Go's names of architectures to those of configurations.
var cpuArchs = map[string]string{"amd64": "x86", "386": "x86", "arm64": "arm", "arm": "arm"}

// freeDiskMiB returns the free space of the file system of dir, or of the root if dir
// does not exist; 0: unknown.
func freeDiskMiB(dir string) int64 {
	var fs unix.Statfs_t
	for _, d := range []string{dir, "/"} {
		if unix.Statfs(d, &fs) == nil {
			return int64(fs.Bavail) * int64(fs.Bsize) >> 20
		}
	}
	return 0
}
