package frontend

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/human"
)

// closeTime is how long the requests of a port that is not wanted any more have.
const closeTime = time.Minute

// port is one published port.
type port struct {
	name    string
	number  int
	options Options
	handler http.Handler
	tls     *tls.Config // nil: plain HTTP
	changed func()

	mu       sync.Mutex
	isWanted bool
	isEnding bool         // it is not opened again
	server   *http.Server // nil: it is closed
	listener net.Listener // of new connections
	fast     FastListener // in front of server; nil: nothing
	problem  string       // why it is closed although it is wanted; empty: it is not
}

// setWanted reports whether anything changes.
func (p *port) setWanted(isWanted bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.isWanted != isWanted
	p.isWanted = isWanted
	return changed
}

func (p *port) currentProblem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isWanted {
		return ""
	}
	return p.problem
}

func (p *port) isOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server != nil
}

// isDecided reports whether the port is open, cannot be opened, or need not be.
func (p *port) isDecided() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.isWanted || p.isEnding || p.server != nil || p.problem != ""
}

// adjust opens or closes the port. It reports whether the port is as it is wanted.
func (p *port) adjust(ctx context.Context, serving *errgroup.Group) (isDone bool) {
	p.mu.Lock()
	isWanted, server, fast := p.isWanted && !p.isEnding, p.server, p.fast
	p.mu.Unlock()
	switch {
	case isWanted == (server != nil):
		return true
	case isWanted:
		return p.open(ctx, serving)
	}
	p.setServer(nil, nil, nil, "")
	serving.Go(func() error {
		limited, cancel := context.WithTimeout(ctx, closeTime)
		defer cancel()
		shutDown(limited, server, fast)
		return server.Close()
	})
	return true
}

func (p *port) open(ctx context.Context, serving *errgroup.Group) (isDone bool) {
	listener, err := p.options.Listen(ctx, p.name, net.JoinHostPort(p.options.Host, portText(p.number)))
	if err != nil {
		p.reportProblem(err)
		return false
	}
	serves := listener
	var fast FastListener
	if p.options.FastPath != nil {
		if fast, err = p.options.FastPath(listener); err != nil {
			_ = listener.Close()
			p.reportProblem(err)
			return false
		}
		serves = fast
	}
	server := NewServer(p.handler, ServerOptions{ConnContext: p.options.ConnContext, BaseContext: p.options.BaseContext, Log: p.options.Log})
	if p.tls != nil {
		server.TLSConfig = p.tls
		serves = tls.NewListener(listener, p.tls)
	}
	if !p.setServer(server, listener, fast, "") {
		_ = serves.Close()
		return true
	}
	p.options.Log.Info("listening for gateways", "port", p.number, "as", p.name)
	serving.Go(func() error {
		err := server.Serve(serves)
		if !errors.Is(err, http.ErrServerClosed) && !p.hasEnded() {
			p.options.Log.Error("cannot accept connections for gateways", "port", p.number, "err", err)
			p.setServer(nil, nil, nil, "port "+portText(p.number)+" was closed: "+human.DescribeFailure(err))
		}
		return nil
	})
	return true
}

// setServer fails if the port ends.
func (p *port) setServer(server *http.Server, listener net.Listener, fast FastListener, problem string) bool {
	defer p.changed()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnding && server != nil {
		return false
	}
	p.server, p.listener, p.fast, p.problem = server, listener, fast, problem
	return true
}

func (p *port) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isEnding
}

// stopAccepting closes the listener for good. Connections stay.
func (p *port) stopAccepting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isEnding = true
	if p.listener != nil {
		_ = p.listener.Close() // it may be closed already
	}
}

// reportProblem keeps why the port could not be opened, and logs it when that changes.
func (p *port) reportProblem(err error) {
	number := portText(p.number)
	flag := cmp.Or(p.options.PortFlag, "--"+p.name+"-port")
	text := "cannot listen on port " + number + ": " + human.DescribeFailure(err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text = "port " + number + " is taken by another program; stop it, or choose another port with " + flag
	case errors.Is(err, fs.ErrPermission):
		text = "port " + number + " needs a right that this process does not have: start it with CAP_NET_BIND_SERVICE, " +
			"or choose a port above 1023 with " + flag
	}
	p.mu.Lock()
	isNew := p.problem != text
	p.problem = text
	p.mu.Unlock()
	p.changed()
	if isNew {
		p.options.Log.Warn("gateways are not served", "why", text)
	}
}

// drain closes the listener, and waits for the requests.
func (p *port) drain(ctx context.Context) {
	p.mu.Lock()
	p.isEnding = true
	server, fast := p.server, p.fast
	p.mu.Unlock()
	if server != nil {
		shutDown(ctx, server, fast)
	}
}

// shutDown ends a server, and before it what is in front of it, once their requests are served, or ctx ended.
func shutDown(ctx context.Context, server *http.Server, fast FastListener) {
	if fast != nil {
		fast.Drain(ctx)
	}
	_ = server.Shutdown(ctx) // its error is that of ctx
}

// close closes the listener and all connections.
func (p *port) close() {
	p.mu.Lock()
	p.isEnding = true
	server := p.server
	p.mu.Unlock()
	if server != nil {
		_ = server.Close() // an error of a listener that is closed anyway
	}
}
