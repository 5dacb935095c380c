package server

import (
	"context"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// hostTokenLife is how long a process that the server starts on a host may take to join.
const hostTokenLife = time.Hour

// clusterTokenLife is how long pods may join a gateway with the token in their cluster: as long as the gateway exists.
const clusterTokenLife = 20 * 365 * 24 * time.Hour

// NewClusterToken returns a new token with which any number of processes in a cluster join a gateway. It ends with the gateway, or
// when the gateway leaves the cluster.
func (s *Server) NewClusterToken(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
	token := api.NewJoinToken(s.authorityFingerprint())
	at := now()
	err := s.store.CreateGatewayToken(ctx, store.GatewayToken{Hash: token.Hash(), Gateway: g.ID, Host: host, User: g.Author,
		ExpiresAt: at.Add(clusterTokenLife), IsShared: true}, at)
	return token.String(), err
}

// NewHostToken returns a new token with which a process that the server starts on a host joins a gateway.
func (s *Server) NewHostToken(ctx context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
	token := api.NewJoinToken(s.authorityFingerprint())
	at := now()
	err := s.store.CreateGatewayToken(ctx, store.GatewayToken{Hash: token.Hash(), Gateway: g.ID, Host: host, User: g.Author, ExpiresAt: at.Add(hostTokenLife)}, at)
	return token.String(), err
}
