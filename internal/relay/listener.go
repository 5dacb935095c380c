package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"dstack/internal/loop"
)

// Pauses of the accept loop when the process has no file descriptor left.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Listener takes the connections of another listener for the relay. As a net.Listener it delivers those that the relay does
// not serve, from the first byte that a client sent: an http.Server is to serve it.
type Listener struct {
	relay *Relay
	inner net.Listener
	log   *slog.Logger

	mu      sync.Mutex
	handed  []net.Conn
	arrived loop.Wake
	taken   loop.Wake // signals that nothing is left in handed
	closed  chan struct{}
	close   func()
}

// Listener returns a listener, whose connections are served once its Run is called.
func (r *Relay) Listener(inner net.Listener) *Listener {
	l := &Listener{relay: r, inner: inner, log: r.options.Log, arrived: loop.NewWake(), taken: loop.NewWake(), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// Run accepts connections until the inner listener is closed, which is net.ErrClosed, or ctx ends, which closes the
// inner listener. Accept goes on: the relay may still hand connections over.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.inner.Close() })
	defer stop()
	pause := minAcceptPause
	for {
		conn, err := l.inner.Accept()
		switch {
		case err == nil:
			pause = minAcceptPause
			l.relay.serve(conn, l)
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			l.log.Warn("cannot accept a connection", "err", err, "again_in", pause)
			if err := loop.Sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, maxAcceptPause)
		}
	}
}

// deliver makes Accept return a connection. It never blocks.
func (l *Listener) deliver(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed() {
		_ = conn.Close()
		return
	}
	l.handed = append(l.handed, conn)
	l.arrived.Signal()
}

func (l *Listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Accept waits for the next connection that the relay does not serve.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if conn := l.takeHanded(); conn != nil {
			return conn, nil
		}
		select {
		case <-l.arrived:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// takeHanded returns the first connection that was handed over, or nil.
func (l *Listener) takeHanded() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.handed) == 0 {
		return nil
	}
	conn := l.handed[0]
	l.handed[0] = nil
	if l.handed = l.handed[1:]; len(l.handed) > 0 {
		l.arrived.Signal()
	} else {
		l.handed = nil
		l.taken.Signal()
	}
	return conn
}

// WaitTaken returns once Accept has returned all connections that were handed over, or the listener was closed, or ctx ended.
// One goroutine may wait at a time.
func (l *Listener) WaitTaken(ctx context.Context) {
	for l.hasHanded() {
		select {
		case <-l.taken:
		case <-l.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (l *Listener) hasHanded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.handed) > 0
}

// Close ends Run and Accept. The connections of the relay stay.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	for _, conn := range l.handed {
		_ = conn.Close() // nobody has seen it
	}
	l.handed = nil
	return l.inner.Close()
}

// Addr returns the address of the inner listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
