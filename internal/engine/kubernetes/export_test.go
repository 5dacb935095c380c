package kubernetes

import (
	"context"
	"time"

	"dstack/internal/dstack"
)

// DeleteLeftovers sweeps as if it were later.
func (c *Cluster) DeleteLeftovers(ctx context.Context, after time.Duration) error {
	return c.deleteLeftovers(ctx, time.Now().Add(after))
}

// PodName returns the name of an attempt's pod and of its secret.
func PodName(o Options, spec dstack.AttemptSpec) string { return podName(o.Installation, spec) }
