package api

import "context"

// PathGatewayAuthority returns the certificate of the installation's own authority for gateways.
const PathGatewayAuthority = "/api/gateways/get_authority"

// GatewayAuthority answers gateways/get_authority.
type GatewayAuthority struct {
	Certificate string `json:"certificate"` // of the root, PEM
}

// GetGatewayAuthority returns the authority that issues certificates for gateways with `certificate: {type: internal}`.
func (c *Client) GetGatewayAuthority(ctx context.Context) (GatewayAuthority, error) {
	var authority GatewayAuthority
	err := c.callOnce(ctx, PathGatewayAuthority, nil, &authority)
	return authority, err
}
