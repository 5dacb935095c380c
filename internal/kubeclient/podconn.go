package kubeclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/streaming/pkg/httpstream"
)

const (
	closeTimeout = time.Second           // how long Close waits at most for a connection that takes no data
	failureDelay = 50 * time.Millisecond // how long after the end of the data its reason is taken up at most
)

// podAddr is the address of a port of a pod.
type podAddr struct {
	pod  string // namespace/name
	port int
}

// Network implements net.Addr.
func (a podAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a podAddr) String() string { return net.JoinHostPort(a.pod, strconv.Itoa(a.port)) }

// podConn is a connection to a port of a pod through the API server. It has its carrier for itself, so ending the one ends
// the other.
type podConn struct {
	carrier        httpstream.Connection
	data, failures httpstream.Stream
	remote         podAddr

	closeOnce   sync.Once
	isClosed    atomic.Bool
	read, write expiry
	failed      chan struct{} // closed when nothing more can fail
	failure     error         // then: why the connection ended; nil: it was closed
}

// newPodConn opens the streams of a connection. It closes the carrier if that fails, or if ctx ends first.
func newPodConn(ctx context.Context, carrier httpstream.Connection, remote podAddr) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = carrier.Close() })
	data, failures, err := openStreams(carrier, remote.port)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, carrier.Close(), context.Cause(ctx))
	}
	c := &podConn{carrier: carrier, data: data, failures: failures, remote: remote, failed: make(chan struct{})}
	go c.readFailures() // ends with the carrier
	return c, nil
}

// Read implements net.Conn. The refusal of the port is an error here: syscall.ECONNREFUSED.
func (c *podConn) Read(p []byte) (int, error) {
	if err := c.check("read", &c.read); err != nil {
		return 0, err
	}
	n, err := c.data.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	return 0, c.explain("read", &c.read, err)
}

// Write implements net.Conn.
func (c *podConn) Write(p []byte) (int, error) {
	if err := c.check("write", &c.write); err != nil {
		return 0, err
	}
	n, err := c.data.Write(p)
	if err == nil {
		return n, nil
	}
	if err = c.explain("write", &c.write, err); errors.Is(err, io.EOF) {
		err = c.opError("write", syscall.EPIPE)
	}
	return n, err
}

func (c *podConn) check(op string, e *expiry) error {
	switch {
	case c.isClosed.Load():
		return c.opError(op, net.ErrClosed)
	case e.hasPassed():
		return c.opError(op, os.ErrDeadlineExceeded)
	}
	return nil
}

// explain returns the error of a call that failed: the streams only say that they have ended.
func (c *podConn) explain(op string, e *expiry, err error) error {
	if known := c.check(op, e); known != nil {
		return known
	}
	if failure := c.waitForFailure(); failure != nil {
		return c.opError(op, failure)
	}
	if known := c.check(op, e); known != nil {
		return known
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return io.EOF
	}
	return c.opError(op, fmt.Errorf("%w: %w", syscall.ECONNRESET, err))
}

// readFailures reads the reasons that the node of the pod sends for the end of the connection. Unread ones would hold up the
// data.
func (c *podConn) readFailures() {
	text, _ := io.ReadAll(io.LimitReader(c.failures, maxText)) // the end of the connection is no other reason
	switch reason := strings.TrimSpace(string(text)); {
	case reason == "":
	case strings.Contains(reason, "connection refused"):
		c.failure = fmt.Errorf("%w: nothing listens on port %d of the pod", syscall.ECONNREFUSED, c.remote.port)
	default:
		c.failure = fmt.Errorf("%w: %s", syscall.ECONNRESET, shortenText(reason))
	}
	close(c.failed)
	if c.failure != nil {
		c.end()
	}
}

// waitForFailure returns why the pod ended the connection; nil if it closed it. A reason arrives before the end of the data.
func (c *podConn) waitForFailure() error {
	timer := time.NewTimer(failureDelay)
	defer timer.Stop()
	select {
	case <-c.failed:
		return c.failure
	case <-timer.C:
		return nil
	}
}

// Close implements net.Conn.
func (c *podConn) Close() error {
	c.isClosed.Store(true)
	c.read.set(time.Time{}, nil)
	c.write.set(time.Time{}, nil)
	c.end()
	return nil
}

// end closes the carrier. What it still writes may take closeTimeout.
func (c *podConn) end() {
	c.closeOnce.Do(func() {
		if limited, ok := c.data.(interface{ SetWriteDeadline(time.Time) error }); ok {
			_ = limited.SetWriteDeadline(time.Now().Add(closeTimeout)) // a connection that is gone needs none
		}
		_ = c.carrier.Close() // nothing can be done about what fails while ending
	})
}

// LocalAddr implements net.Conn.
func (c *podConn) LocalAddr() net.Addr { return podAddr{"apiserver", 0} }

// RemoteAddr implements net.Conn.
func (c *podConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *podConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. A deadline that passes ends the connection.
func (c *podConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.read, t) }

// SetWriteDeadline implements net.Conn. A deadline that passes ends the connection.
func (c *podConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *podConn) setDeadline(e *expiry, t time.Time) error {
	if c.isClosed.Load() {
		return c.opError("set", net.ErrClosed)
	}
	e.set(t, c.end)
	return nil
}

func (c *podConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.remote.Network(), Addr: c.remote, Err: err}
}

// expiry is a deadline. Once passed, it stays so.
type expiry struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed atomic.Bool
}

func (e *expiry) hasPassed() bool { return e.passed.Load() }

// set changes the time at which end is called; the zero time is never.
func (e *expiry) set(t time.Time, end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		e.passed.Store(true)
	}
	e.timer = time.AfterFunc(wait, func() {
		e.passed.Store(true)
		end()
	})
}
