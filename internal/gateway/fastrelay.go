package gateway

import "dstack/internal/relay"

// NewRelay returns a relay that serves the plain requests of one listener, within the limits of the gateway.
func (g *Gateway) NewRelay(o DirectorOptions) (*relay.Relay, error) {
	return relay.New(relay.Options{Director: g.Director(o), Openings: g.openings, Limits: g.RelayLimits(), Log: g.log})
}
