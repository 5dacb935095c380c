package gateway

import (
	"context"
	"net"
	"time"

	"dstack/internal/dial"
	"dstack/internal/relay"
)

// openingTimeout is how long one attempt to open a connection takes at most. Linux repeats it after a second, and after
// three and seven: a new attempt succeeds sooner where the listen queue of a replica was full.
const openingTimeout = time.Second

// replicaDialer opens connections to replicas, a few at a time for each replica.
type replicaDialer struct {
	dialer   *dial.Dialer
	openings *openingLimiter
	limits   Limits
}

// dial opens a connection for http.Transport. The first byte that is read from it gives the place back.
func (d *replicaDialer) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, place, err := d.open(ctx, address)
	if err != nil {
		return nil, err
	}
	return newReplicaConn(conn, d.limits.ResponseTimeout, place), nil
}

// open opens a connection to the endpoint that address names, as dial.URLHost does. It repeats attempts that hang until
// the replica has accepted no connection for Limits.ConnectTimeout. Its error is a dialError, or that of ctx. The caller
// gives the place back.
func (d *replicaDialer) open(ctx context.Context, address string) (net.Conn, *opening, error) {
	began := time.Now()
	for {
		place, err := d.openings.wait(ctx, address)
		if err != nil {
			return nil, nil, err
		}
		conn, err := d.attempt(ctx, address)
		if err == nil {
			place.Connected()
			return conn, place, nil
		}
		switch {
		case ctx.Err() != nil:
			place.Leave(relay.Unused)
			return nil, nil, context.Cause(ctx)
		case isTimeout(err):
			place.Leave(relay.Hung)
			fruitless := min(time.Since(began), time.Since(place.lastSuccess()))
			if fruitless+openingTimeout <= d.limits.ConnectTimeout {
				continue
			}
		default:
			place.Leave(relay.Refused)
		}
		return nil, nil, &dialError{err}
	}
}

// attempt makes one attempt. The way through another host is not known to lose attempts, and may be slow.
func (d *replicaDialer) attempt(ctx context.Context, address string) (net.Conn, error) {
	limit := d.limits.ConnectTimeout
	if !dial.IsThroughHost(address) {
		limit = min(limit, openingTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return d.dialer.DialContext(ctx, "tcp", address)
}
