package kubernetes

import (
	"context"
	"time"

	"dstack/internal/dstack"
)

// DeleteLeftovers sweeps as if it were later.
func (c *Cluster) DeleteLeftovers(ctx context.Context, after time.Duration) error {
	_, err := c.SweepOnce(ctx, after)
	return err
}

// SweepOnce sweeps as if it were later, and returns when the next sweep is due.
func (c *Cluster) SweepOnce(ctx context.Context, after time.Duration) (time.Duration, error) {
	return c.deleteLeftovers(ctx, time.Now().Add(after))
}

// PodName returns the name of an attempt's pod and of its secret.
func PodName(o Options, spec dstack.AttemptSpec) string { return podName(o.Installation, spec) }

// ForgetBudget lets the next start look at the disruption budget, as a minute would.
func (c *Cluster) ForgetBudget() {
	c.budgetMu.Lock()
	defer c.budgetMu.Unlock()
	c.budgetAt = time.Time{}
}
