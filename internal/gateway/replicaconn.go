package gateway

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/relay"
)

// lateReadTimeout is how long the gateway waits for the next piece of a response
// once it cannot send the rest of the request.
const lateReadTimeout = 5 * time.Second

// replicaConn is a connection to a replica, for http.Transport. A replica may
// respond before it has read the request, and close the connection: it refuses
// a large upload, for example. The gateway then gets an error for the rest of
// the request, although the response has arrived, and http.Transport closes the
// connection because of that error. replicaConn therefore withholds an error of
// Write until the response is read to its end. Data that arrived before a reset
// stays readable on Linux.
//
// A replica may also stop reading. While the gateway cannot send a body on, it
// does not read the client's either, and does not learn that the client has
// left. So a Write ends with an error after a while.
type replicaConn struct {
	net.Conn
	stall         time.Duration         // the least time that a Write waits for the replica
	writeDeadline time.Time             // of the connection; used by Write alone
	writeError    atomic.Pointer[error] // the first error of Write
	readEnded     chan struct{}         // closed by the first error of Read, and by Close
	endRead       func()
	leaveOpening  func(relay.OpeningResult) // once, with what came of the new connection
}

func newReplicaConn(conn net.Conn, stall time.Duration, place *opening) *replicaConn {
	c := &replicaConn{Conn: conn, stall: stall, readEnded: make(chan struct{})}
	var once sync.Once
	c.leaveOpening = func(result relay.OpeningResult) { once.Do(func() { place.Leave(result) }) }
	c.endRead = sync.OnceFunc(func() { close(c.readEnded) })
	return c
}

// Write writes to the connection. It returns an error only after Read has
// returned one or Close was called.
func (c *replicaConn) Write(p []byte) (int, error) {
	c.extendWriteDeadline()
	n, err := c.Conn.Write(p)
	if err == nil {
		return n, nil
	}
	if c.writeError.CompareAndSwap(nil, &err) {
		c.limitRead() // for a Read that waits already
	}
	<-c.readEnded
	return n, err
}

// Read reads from the connection. After an error of Write it waits for
// lateReadTimeout at most, and then returns that error.
func (c *replicaConn) Read(p []byte) (int, error) {
	if c.writeError.Load() != nil {
		c.limitRead()
	}
	n, err := c.Conn.Read(p)
	if err == nil {
		c.leaveOpening(relay.Opened)
		return n, nil
	}
	if failed := c.writeError.Load(); failed != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = *failed
	}
	c.endRead()
	return n, err
}

// extendWriteDeadline moves the deadline of Write once less than stall is left:
// setting it for every Write would cost too much.
func (c *replicaConn) extendWriteDeadline() {
	now := time.Now()
	if c.writeDeadline.Sub(now) >= c.stall {
		return
	}
	c.writeDeadline = now.Add(c.stall + c.stall/2)
	_ = c.Conn.SetWriteDeadline(c.writeDeadline) // a connection without deadlines cannot be limited
}

func (c *replicaConn) limitRead() {
	// A connection without deadlines cannot be limited; Close ends its reads.
	_ = c.Conn.SetReadDeadline(time.Now().Add(lateReadTimeout))
}

// Close closes the connection and ends a Write that waits for the response.
func (c *replicaConn) Close() error {
	c.endRead()
	c.leaveOpening(relay.Unused)
	return c.Conn.Close()
}
