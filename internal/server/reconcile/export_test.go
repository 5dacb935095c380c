package reconcile

import (
	"context"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/server/store"
)

// MaxListingAge is how long a list of machines is used for other instances.
const MaxListingAge = maxListingAge

// RunInstancePass makes the next steps of the instances that are due, as far as there are
// slots, until no instance is due. It returns how many steps there were.
func (r *Reconciler) RunInstancePass(ctx context.Context) (int, error) {
	p := r.newInstancePass()
	for now, n := time.Now(), 0; ; {
		leases, err := r.Store.Claim(ctx, store.Instances, r.Owner, r.Host, now, leaseTime, p.countFree())
		if err != nil || len(leases) == 0 {
			return n, err
		}
		n += len(leases)
		p.begin(ctx, leases, r.Permit())
		p.steps.Wait()
	}
}

// DetachFromEnded ends the attachments of a machine that has ended.
func (r *Reconciler) DetachFromEnded(ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts, permit func() error) error {
	return r.detachFromEnded(ctx, b, seen, permit)
}
