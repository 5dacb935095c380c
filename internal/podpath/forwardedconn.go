package podpath

import (
	"net"
	"sync"
	"time"
)

// forwardedConn is a connection through the API server whose deadlines limit only the calls that are in progress, as those of TCP do: one
// that passes between two calls does not end a stream in the other direction.
type forwardedConn struct {
	net.Conn
	read, write callDeadline
}

func newForwardedConn(conn net.Conn) *forwardedConn {
	return &forwardedConn{Conn: conn, read: callDeadline{set: conn.SetReadDeadline}, write: callDeadline{set: conn.SetWriteDeadline}}
}

// Read reads from the pod.
func (c *forwardedConn) Read(p []byte) (int, error) {
	defer c.read.begin()()
	return c.Conn.Read(p)
}

// Write writes to the pod.
func (c *forwardedConn) Write(p []byte) (int, error) {
	defer c.write.begin()()
	return c.Conn.Write(p)
}

// SetDeadline sets both deadlines.
func (c *forwardedConn) SetDeadline(t time.Time) error {
	c.read.change(t)
	c.write.change(t)
	return nil
}

// SetReadDeadline limits Read. A Read that it ends is the last one.
func (c *forwardedConn) SetReadDeadline(t time.Time) error {
	c.read.change(t)
	return nil
}

// SetWriteDeadline limits Write. A Write that it ends is the last one.
func (c *forwardedConn) SetWriteDeadline(t time.Time) error {
	c.write.change(t)
	return nil
}

// callDeadline is a deadline that is set on the connection only while a call is in progress.
type callDeadline struct {
	set func(time.Time) error

	mu    sync.Mutex
	at    time.Time // zero: there is none
	calls int       // that are in progress
}

// begin marks the begin of a call, and returns what marks its end.
func (d *callDeadline) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if !d.at.IsZero() {
		_ = d.set(d.at) // a connection that is closed has no deadlines
	}
	return d.end
}

func (d *callDeadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls--; d.calls == 0 && !d.at.IsZero() {
		_ = d.set(time.Time{})
	}
}

func (d *callDeadline) change(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.calls > 0 {
		_ = d.set(t)
	}
}
