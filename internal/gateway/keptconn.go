package gateway

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"dstack/internal/httpwire"
	"dstack/internal/relay"
)

// readBufferSize is what a response is read with at first. A connection without a request has no buffer.
const readBufferSize = 8 << 10

var readBuffers = sync.Pool{New: func() any { b := make([]byte, readBufferSize); return &b }}

// keptConn is a connection to a replica, which serves one request at a time.
type keptConn struct {
	net.Conn
	pool    *replicaPool
	address string
	raw     syscall.RawConn
	place   *opening  // in which it was opened; nil: the replica has responded over it
	keptAt  time.Time // when it was given back last
	isKept  bool      // it has served a request
	quiet   quietCheck

	buffer     *[]byte // nil between requests
	begin, end int     // of the unread part of the buffer
}

func newKeptConn(pool *replicaPool, address string, conn net.Conn, place *opening) *keptConn {
	c := &keptConn{Conn: conn, pool: pool, address: address, place: place}
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn() // an error shows when the connection is used
	}
	c.quiet.check = c.quiet.peek
	return c
}

// isQuiet reports that nothing has arrived between two requests. A replica that has closed the connection is not to get
// a request over it, and what it sent without being asked must not pass for a response.
func (c *keptConn) isQuiet() bool {
	if c.raw == nil || time.Since(c.keptAt) > replicaIdleTimeout {
		return false
	}
	return c.quiet.run(c.raw)
}

func (c *keptConn) close() {
	c.leaveOpening(relay.Unused)
	c.releaseBuffer()
	_ = c.Conn.Close() // nothing is left to be lost
}

// leaveOpening gives the place back in which the connection was opened.
func (c *keptConn) leaveOpening(result relay.OpeningResult) {
	if c.place != nil {
		c.place.Leave(result)
		c.place = nil
	}
}

// unread returns what has arrived and was not read yet.
func (c *keptConn) unread() []byte {
	if c.buffer == nil {
		return nil
	}
	return (*c.buffer)[c.begin:c.end]
}

// fill waits for more to read.
func (c *keptConn) fill() error {
	if c.buffer == nil {
		c.buffer = readBuffers.Get().(*[]byte)
		c.begin, c.end = 0, 0
	}
	if c.begin == c.end {
		c.begin, c.end = 0, 0
	}
	if c.end == len(*c.buffer) { // only within a head
		grown := make([]byte, min(2*len(*c.buffer), httpwire.MaxHead+readBufferSize))
		c.end = copy(grown, c.unread())
		c.begin = 0
		c.releaseBuffer()
		c.buffer = &grown
	}
	n, err := c.Conn.Read((*c.buffer)[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (c *keptConn) releaseBuffer() {
	if c.buffer != nil && len(*c.buffer) == readBufferSize {
		readBuffers.Put(c.buffer)
	}
	c.buffer = nil
}

// watch interrupts reads and writes when ctx ends, until stop is called. Stop reports that they were not.
func (c *keptConn) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.Conn.SetDeadline(time.Unix(1, 0)) }) // a closed connection needs none
}
