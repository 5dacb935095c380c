package kubernetes

import (
	"context"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/kubegateway"
)

var _ engine.ClusterGateways = (*Backend)(nil)

// gateways returns the gateways of the cluster, or why it cannot be used.
func (b *Backend) gateways() (*kubegateway.Gateways, error) {
	client, err := b.Client()
	if err != nil {
		return nil, err
	}
	return kubegateway.New(client, b.Installation, b.Settings.GatewayImage), nil
}

// GatewayImage implements engine.ClusterGateways.
func (b *Backend) GatewayImage() string { return b.Settings.GatewayImage }

// ApplyGateway implements engine.ClusterGateways.
func (b *Backend) ApplyGateway(ctx context.Context, launch engine.ClusterGatewayLaunch) error {
	gateways, err := b.gateways()
	if err != nil {
		return err
	}
	return gateways.ApplyGateway(ctx, launch)
}

// FindGateway implements engine.ClusterGateways.
func (b *Backend) FindGateway(ctx context.Context, id dstack.GatewayID) (dstack.ClusterGateway, error) {
	gateways, err := b.gateways()
	if err != nil {
		return dstack.ClusterGateway{}, err
	}
	return gateways.FindGateway(ctx, id)
}

// DeleteGateway implements engine.ClusterGateways.
func (b *Backend) DeleteGateway(ctx context.Context, id dstack.GatewayID) error {
	gateways, err := b.gateways()
	if err != nil {
		return err
	}
	return gateways.DeleteGateway(ctx, id)
}
