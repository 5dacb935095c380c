package local

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/inventory"
)

const (
	gpuListTTL     = time.Minute // GPUs rarely change, but a driver may fail
	gpuListTimeout = 10 * time.Second
)

// gpuLister lists this machine's GPUs with the driver's tool, nvidia-smi.
type gpuLister struct {
	mu       sync.Mutex
	listedAt time.Time
	cached   []dstack.GPU
}

// list returns the GPUs. It runs nvidia-smi once per gpuListTTL; if that fails, it
// returns the last result. Without nvidia-smi there are no GPUs.
func (c *gpuLister) list(ctx context.Context) []dstack.GPU {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.listedAt.IsZero() && time.Since(c.listedAt) < gpuListTTL {
		return c.cached
	}
	ctx, cancel := context.WithTimeout(ctx, gpuListTimeout)
	defer cancel()
	c.listedAt = time.Now()
	tool, err := exec.LookPath("nvidia-smi")
	if err != nil {
		c.cached = nil
		return nil
	}
	out, err := exec.CommandContext(ctx, tool, "--query-gpu=uuid,name,memory.total,compute_cap", "--format=csv,noheader,nounits").Output()
	if err == nil {
		c.cached = parseGPUs(string(out))
	}
	return c.cached
}

// parseGPUs parses lines such as "GPU-1b2c, NVIDIA L4, 23034, 8.9". It skips lines of
// another form.
func parseGPUs(text string) (gpus []dstack.GPU) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) < 3 || !strings.HasPrefix(f[0], "GPU-") {
			continue
		}
		memory, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			continue
		}
		_, name := inventory.NameGPU(f[1])
		g := dstack.GPU{ID: f[0], Maker: "nvidia", Name: name, MemoryMiB: memory}
		if len(f) > 3 {
			major, minor, _ := strings.Cut(f[3], ".")
			g.Capability[0], _ = strconv.Atoi(major) // zero if unknown
			g.Capability[1], _ = strconv.Atoi(minor)
		}
		gpus = append(gpus, g)
	}
	return gpus
}
