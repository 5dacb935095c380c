package local

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"dstack/internal/inventory"
)

const (
	gpuListTTL     = time.Minute // GPUs rarely change, but a driver may fail
	gpuListTimeout = time.Minute
)

// gpuLister lists this machine's GPUs.
type gpuLister struct {
	mu       sync.Mutex
	listedAt time.Time
	cached   inventory.GPUReport
}

// list returns the GPUs. It runs the tools of the drivers once per gpuListTTL; if that
// fails, it returns the last result. Only Linux has GPUs that replicas can use.
func (c *gpuLister) list(ctx context.Context) inventory.GPUReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if runtime.GOOS != "linux" || !c.listedAt.IsZero() && time.Since(c.listedAt) < gpuListTTL {
		return c.cached
	}
	ctx, cancel := context.WithTimeout(ctx, gpuListTimeout)
	defer cancel()
	c.listedAt = time.Now()
	command := exec.CommandContext(ctx, "sh", "-s")
	command.Stdin = strings.NewReader(inventory.GPUScript)
	if out, err := command.Output(); err == nil {
		c.cached = inventory.ParseGPUs(string(out))
	}
	return c.cached
}
