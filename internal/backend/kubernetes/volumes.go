package kubernetes

import (
	"context"

	"dstack/internal/backend"
	"dstack/internal/decide/node"
	"dstack/internal/dstack"
)

var _ backend.Volumes = (*Backend)(nil)

// newClaims returns the volumes of the cluster of a connection.
func (c *connection) newClaims() *claims {
	return &claims{
		client: c.client, key: c.b.key, installation: c.b.Installation,
		nodes: func() ([]node.Facts, bool) { return c.listNodes(), c.result().hasNodes },
		anyNode: func() dstack.InstanceID {
			if c.hasAnyNode() {
				return node.AnyNodeID(c.b.key)
			}
			return ""
		},
	}
}

// CreateVolume creates a claim in the namespace, or checks an existing one.
func (b *Backend) CreateVolume(ctx context.Context, v dstack.Volume) error {
	conn, err := b.usable(ctx)
	if err != nil {
		return err
	}
	return conn.claims.create(ctx, v)
}

// DeleteVolume requests the deletion of a claim that CreateVolume created. It fails with Conflict while pods mount the claim.
func (b *Backend) DeleteVolume(ctx context.Context, v dstack.Volume) error {
	conn, err := b.usable(ctx)
	if err != nil {
		return err
	}
	return conn.claims.remove(ctx, v)
}

// ListVolumes returns the claims of this installation, and the existing ones that were checked since the kubeconfig was read.
func (b *Backend) ListVolumes(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	conn, err := b.usable(ctx)
	if err != nil {
		return nil, err
	}
	return conn.claims.list(ctx)
}
