package api

import "context"

// PathGatewayAuthority is the call for the root of the internal authority, which issues the certificates of
// gateways with `certificate: {type: internal}`.
const PathGatewayAuthority = "/api/gateway_authority/get"

// GatewayAuthority answers gateway_authority/get.
type GatewayAuthority struct {
	Certificate string `json:"certificate"` // PEM
}

// GetGatewayAuthority returns the root of the internal authority.
func (c *Client) GetGatewayAuthority(ctx context.Context) (GatewayAuthority, error) {
	return readWithRetry[GatewayAuthority](ctx, c, PathGatewayAuthority, nil, callTimeout)
}
