package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"dstack/internal/gateway"
	"dstack/internal/loop"
	"dstack/internal/relay"
)

// fastPathVariable switches the fast path off, so that net/http serves all requests.
const fastPathVariable = "DSTACK_SERVER_FAST_PATH"

// readFastPath reports whether the fast path is on.
func readFastPath() (bool, error) {
	switch value := os.Getenv(fastPathVariable); value {
	case "", "on":
		return true, nil
	case "off":
		return false, nil
	default:
		return false, newInvalidError(fastPathVariable+" is neither on nor off: "+value,
			"leave it out, or write off to serve all requests by Go's net/http")
	}
}

// fastPort is a listener with the fast path in front of an http.Server: it serves the requests of services that are plain, and
// delivers the other connections. Its own connections are closed with it.
type fastPort struct {
	inner   net.Listener
	relay   *relay.Relay
	handed  *relay.Listener
	running errgroup.Group
	stop    context.CancelFunc

	mu     sync.Mutex
	failed error
}

// openFastPort puts the fast path of a gateway in front of a listener.
func openFastPort(inner net.Listener, g *gateway.Gateway, o gateway.DirectorOptions) (*fastPort, error) {
	r, err := g.NewRelay(o)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &fastPort{inner: inner, relay: r, handed: r.Listener(inner), stop: stop}
	tasks := append(r.Tasks(), loop.Task{Name: "accept", Run: func(ctx context.Context) error {
		err := p.handed.Run(ctx)
		if errors.Is(err, net.ErrClosed) { // connections are served on
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	}})
	p.running.Go(func() error {
		err := loop.Run(ctx, tasks...)
		p.fail(err)
		_ = p.handed.Close() // it may be closed already
		return err
	})
	return p, nil
}

func (p *fastPort) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err
}

// Accept waits for the next connection that the fast path does not serve. If the fast path fails, so does Accept.
func (p *fastPort) Accept() (net.Conn, error) {
	conn, err := p.handed.Accept()
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		return nil, errors.Join(p.failed, err)
	}
	return conn, nil
}

// Close closes the listener and the connections of the fast path. Drain lets their requests finish before.
func (p *fastPort) Close() error {
	p.stop()
	return ignoreClosed(p.handed.Close()) // Drain closes the inner one
}

// Addr returns the address of the listener.
func (p *fastPort) Addr() net.Addr { return p.inner.Addr() }

// Drain stops accepting connections, and returns once the fast path serves no request any more, or ctx ended.
func (p *fastPort) Drain(ctx context.Context) {
	_ = p.inner.Close() // it may be closed already
	p.relay.Drain(ctx)
	p.handed.WaitTaken(ctx)
}

// challengePath begins the paths at which certificate authorities ask.
var challengePath = []byte("/.well-known/acme-challenge/")

// isChallenge reports that a request may be a certificate authority's.
func isChallenge(x *relay.Exchange) bool { return bytes.HasPrefix(x.Request.Target, challengePath) }
