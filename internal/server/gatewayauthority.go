package server

import (
	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// getGatewayAuthority returns the certificate of the installation's own authority for gateways. It is not secret.
func (s *Server) getGatewayAuthority(c *apiCall, _ wire.Null) (api.GatewayAuthority, error) {
	if s.gatewayAuthority == nil {
		return api.GatewayAuthority{}, &dstack.Error{Kind: dstack.Unsupported, Message: "this server keeps no certificates"}
	}
	root, err := s.gatewayAuthority(c.ctx)
	return api.GatewayAuthority{Certificate: string(root)}, err
}
