package kubernetes

import (
	"context"
	"time"
)

// DeleteLeftovers sweeps as if it were later.
func (c *Cluster) DeleteLeftovers(ctx context.Context, after time.Duration) error {
	return c.deleteLeftovers(ctx, time.Now().Add(after))
}
