package cloud

import (
	"context"

	"dstack/internal/catalogue"
	"dstack/internal/dstack"
)

// Catalogue has the types of machines of the cloud.
type Catalogue interface {
	// Rows returns all types.
	Rows() []catalogue.Row
}

// DiskLimits are the sizes of the disks that machines boot from, where the type of a machine has none of its own.
type DiskLimits struct{ MinMiB, MaxMiB int64 }

// Offers returns the types of machines that can be rented.
func (b *Backend) Offers(ctx context.Context, need dstack.Requirements) ([]dstack.Offer, error) {
	if err := b.explainNoAccess(); err != nil {
		return nil, err
	}
	return nil, ctx.Err()
}
