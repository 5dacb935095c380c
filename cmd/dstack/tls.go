package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/decide/route"
	"dstack/internal/frontend"
	"dstack/internal/gateway"
	"dstack/internal/installationca"
	"dstack/internal/relay"
)

// openAuthority reads the certificate authority of the installation from the store. The first server makes it.
func (d *daemon) openAuthority(ctx context.Context) error {
	text, err := d.store.Authority(ctx, func() ([]byte, error) {
		fresh, err := installationca.New(time.Now())
		if err != nil {
			return nil, err
		}
		return fresh.Marshal()
	})
	if err != nil {
		return err
	}
	d.authority, err = installationca.Parse(text)
	return err
}

// serverTLS returns the configuration of TLS on the server's own port. Gateways and other servers know the server by the
// authority of the installation; the names are for programs that are given its certificate.
func (d *daemon) serverTLS() *tls.Config {
	names := []string{"localhost", "127.0.0.1", "::1"}
	for _, host := range []string{d.host, hostOf(d.publicHost), machineName()} {
		ip := net.ParseIP(host)
		if (ip == nil || !ip.IsUnspecified()) && route.IsValidHost(host) && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	return d.authority.ServerConfig(names...)
}

// hostOf returns a host without its port.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// machineName returns the name of this machine, or "" if it is not known.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// mainPort is the server's own port, which serves plain HTTP and TLS.
type mainPort struct {
	server *http.Server
	split  *frontend.Splitter
	fast   *fastPort // nil: net/http serves all
}

func (d *daemon) newMainPort() (*mainPort, error) {
	p := &mainPort{split: frontend.NewSplitter(d.listener, d.log), server: frontend.NewServer(frontend.AcceptWebSockets(d),
		frontend.ServerOptions{ConnContext: gateway.WithConn, Log: d.log,
			BaseContext: func(net.Listener) context.Context { return d.uncut }})}
	p.server.TLSConfig = d.serverTLS()
	var err error
	if d.hasFastPath {
		options := d.directorOptions(func(_ string, x *relay.Exchange) bool { return !d.mayWarn(x) })
		p.fast, err = openFastPort(p.split.Plain(), d.gateway, options)
	}
	return p, err
}

// serve accepts connections until the port is shut down, which is http.ErrServerClosed, or its listener fails.
func (p *mainPort) serve() error {
	var group errgroup.Group
	group.Go(func() error {
		if p.fast != nil {
			return p.server.Serve(p.fast)
		}
		return p.server.Serve(p.split.Plain())
	})
	group.Go(func() error { return p.server.Serve(tls.NewListener(p.split.TLS(), p.server.TLSConfig)) })
	err := p.split.Run(context.Background()) //nolint:contextcheck // it ends with its listener
	if errors.Is(err, net.ErrClosed) {       // by shutDown
		return group.Wait()
	}
	return errors.Join(err, p.server.Close(), group.Wait())
}

// shutDown stops accepting connections and waits until those that are open are idle.
func (p *mainPort) shutDown(ctx context.Context) error {
	p.split.Drain(ctx)
	if p.fast != nil {
		p.fast.Drain(ctx)
	}
	return p.server.Shutdown(ctx)
}
