package reconcile

import (
	"context"
	"time"

	"dstack/internal/server/store"
)

// RunInstancePass runs one pass over the instances that are due, and returns how
// many there were.
func (r *Reconciler) RunInstancePass(ctx context.Context) (int, error) {
	leases, err := r.Store.Claim(ctx, store.Instances, r.Owner, r.Host, time.Now(), leaseTime, instanceBatch)
	if err == nil {
		r.stepInstances(ctx, leases)
	}
	return len(leases), err
}
