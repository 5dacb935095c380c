package frontend

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/loop"
)

// Splitter shares one listener between TLS and plain HTTP: the first byte of a connection tells them apart. No byte is
// consumed.
type Splitter struct {
	listener   net.Listener
	plain, tls *splitListener
	log        *slog.Logger

	mu         sync.Mutex
	waiting    map[net.Conn]bool // connections whose first byte has not arrived
	isDraining bool
	idle       chan struct{} // closed when a drain has ended
}

// NewSplitter returns a splitter, which accepts connections once Run is called.
func NewSplitter(l net.Listener, log *slog.Logger) *Splitter {
	return &Splitter{
		listener: l, log: log, plain: newSplitListener(l.Addr()), tls: newSplitListener(l.Addr()),
		waiting: map[net.Conn]bool{}, idle: make(chan struct{}),
	}
}

// Plain returns the listener of connections without TLS.
func (s *Splitter) Plain() net.Listener { return s.plain }

// TLS returns the listener of connections whose clients begin with TLS, for tls.NewListener.
func (s *Splitter) TLS() net.Listener { return s.tls }

// Pauses of the accept loop when the process has no file descriptor left.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Run accepts connections until the listener is closed or ctx ends.
func (s *Splitter) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	var sorting errgroup.Group
	defer func() { _ = sorting.Wait() }() // it has no errors
	pause := minAcceptPause
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			pause = minAcceptPause
			if s.add(conn) {
				sorting.Go(func() error { s.sortConn(conn); return nil })
			}
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.log.Warn("cannot accept a connection", "err", err, "again_in", pause)
			if err := loop.Sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, maxAcceptPause)
		}
	}
}

// lateFirstByte is how long a connection may be silent once the splitter drains.
const lateFirstByte = 250 * time.Millisecond

// add registers a connection whose first byte is awaited.
func (s *Splitter) add(conn net.Conn) bool {
	wait := headerTimeout
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isDraining {
		wait = lateFirstByte
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		_ = conn.Close()
		return false
	}
	s.waiting[conn] = true
	return true
}

// sortConn hands a connection to its listener once its first byte has arrived.
func (s *Splitter) sortConn(conn net.Conn) {
	defer s.remove(conn)
	first, err := peekByte(conn)
	if err != nil || conn.SetReadDeadline(time.Time{}) != nil {
		_ = conn.Close()
		return
	}
	to := s.plain
	if first == tlsHandshake {
		to = s.tls
	}
	to.deliver(conn)
}

// tlsHandshake is the first byte of a TLS connection: the type of the record. No method of HTTP begins with it.
const tlsHandshake = 0x16

func (s *Splitter) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, conn)
	if s.isDraining && len(s.waiting) == 0 {
		s.endDrain()
	}
}

// endDrain is called with mu held.
func (s *Splitter) endDrain() {
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// Drain stops accepting connections, and returns once those that were accepted are with the servers of their listeners,
// or ctx ended. Those servers are to shut down only then.
func (s *Splitter) Drain(ctx context.Context) {
	_ = s.listener.Close() // it may be closed already
	s.mu.Lock()
	s.isDraining = true
	for conn := range s.waiting {
		_ = conn.SetReadDeadline(time.Now().Add(lateFirstByte)) // a broken connection ends by itself
	}
	if len(s.waiting) == 0 {
		s.endDrain()
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
}

// splitListener is the listener of one kind of connections.
type splitListener struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	close   func()
}

func newSplitListener(address net.Addr) *splitListener {
	l := &splitListener{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *splitListener) deliver(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// Accept waits for the next connection.
func (l *splitListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. It does not close the listener that is shared.
func (l *splitListener) Close() error {
	l.close()
	return nil
}

// Addr returns the address of the listener that is shared.
func (l *splitListener) Addr() net.Addr { return l.address }
