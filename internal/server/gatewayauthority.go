package server

import (
	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// getGatewayAuthority answers with the root that clients of gateways with internal certificates trust. It is no secret.
func (s *Server) getGatewayAuthority(c *apiCall, _ wire.Null) (api.GatewayAuthority, error) {
	if s.links.Authority == nil {
		return api.GatewayAuthority{}, &dstack.Error{Kind: dstack.Unsupported, Message: "this server has no authority for certificates"}
	}
	root, err := s.links.Authority(c.ctx)
	return api.GatewayAuthority{Certificate: string(root)}, err
}
