package gateway

import "dstack/internal/relay"

// NewRelay returns a relay that serves the plain requests of one listener, within the limits of the gateway.
func (g *Gateway) NewRelay(o DirectorOptions) (*relay.Relay, error) {
	l := g.limits
	return relay.New(relay.Options{
		Director: g.Director(o), Openings: g.openings, Log: g.log,
		Limits: relay.Limits{ReplicaIdle: replicaIdleTimeout, OpenTimeout: l.ConnectTimeout, ResponseTimeout: l.ResponseTimeout,
			StallTimeout: l.StallTimeout},
	})
}
