package sshclient

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// channelConn is a channel as a net.Conn. Channels of x/crypto have no deadlines, and their calls block until the server or
// the loss of the connection ends them. So a task reads ahead one piece, and each Write runs in a task of its own.
type channelConn struct {
	link       *link
	channel    ssh.Channel
	source     io.Reader // the channel, or what follows the marker of a command
	remote     net.Addr
	explainEnd func(error) error // returns the error of Read at the end; called once
	end        func()            // ends the channel after Close, and may block

	readMu sync.Mutex // one Read at a time
	pieces chan piece
	rest   []byte // of the piece that is being read
	piece  piece
	ended  chan struct{} // closed after the last piece
	endErr error         // of Read then

	writeMu  sync.Mutex // one Write at a time
	writeErr error      // an earlier Write did not end: what arrived of it is not known
	callMu   sync.Mutex // one call of the channel at a time, also after the Write that it belongs to

	readDeadline, writeDeadline deadline
	closeOnce                   sync.Once
	closed                      chan struct{}
}

// piece is data that was read ahead.
type piece struct {
	buffer *[]byte
	n      int
}

// Buffers are small while little arrives, so that an idle connection needs little memory.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10 // the most that one SSH packet carries
)

var smallBuffers, largeBuffers = newBufferPool(smallBuffer), newBufferPool(largeBuffer)

func newBufferPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { buffer := make([]byte, size); return &buffer }}
}

func takeBuffer(size int) *[]byte {
	if size <= smallBuffer {
		return smallBuffers.Get().(*[]byte)
	}
	return largeBuffers.Get().(*[]byte)
}

func giveBuffer(buffer *[]byte) {
	if len(*buffer) == smallBuffer {
		smallBuffers.Put(buffer)
		return
	}
	largeBuffers.Put(buffer)
}

// newChannelConn returns a connection. The caller sets its other fields and calls start.
func newChannelConn(l *link, channel ssh.Channel, source io.Reader) *channelConn {
	return &channelConn{link: l, channel: channel, source: source, remote: &net.UnixAddr{Net: "unix"},
		pieces: make(chan piece), ended: make(chan struct{}), closed: make(chan struct{})}
}

// start begins to read ahead.
func (c *channelConn) start() {
	if !c.link.tasks.start(c.readAhead) {
		c.endReads(c.link.lost(io.ErrUnexpectedEOF))
	}
}

func (c *channelConn) endReads(err error) {
	c.endErr = err
	close(c.ended)
}

// readAhead hands over what arrives, until the end or Close. After Close, it discards what still arrives, so that a command
// that prints can end.
func (c *channelConn) readAhead() {
	size := smallBuffer
	for {
		buffer := takeBuffer(size)
		n, err := c.source.Read(*buffer)
		size = smallBuffer
		if n == len(*buffer) {
			size = largeBuffer
		}
		if n > 0 {
			select {
			case c.pieces <- piece{buffer: buffer, n: n}:
			case <-c.closed:
				giveBuffer(buffer)
			case <-c.link.done:
				giveBuffer(buffer)
				err = io.ErrUnexpectedEOF
			}
		} else {
			giveBuffer(buffer)
		}
		if err != nil {
			c.endReads(c.explainEnd(err))
			return
		}
	}
}

// Read implements net.Conn.
func (c *channelConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	expired := c.readDeadline.expired()
	switch {
	case isClosed(c.closed):
		return 0, c.opError("read", net.ErrClosed)
	case isClosed(expired):
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	case len(p) == 0:
		return 0, nil
	}
	if len(c.rest) == 0 {
		select {
		case c.piece = <-c.pieces:
			c.rest = (*c.piece.buffer)[:c.piece.n]
		case <-c.ended:
			return 0, c.endErr
		case <-expired:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case <-c.closed:
			return 0, c.opError("read", net.ErrClosed)
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		giveBuffer(c.piece.buffer)
		c.piece, c.rest = piece{}, nil
	}
	return n, nil
}

// Write implements net.Conn. After a Write that did not end before its deadline, further ones fail.
func (c *channelConn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	written := 0
	for {
		part := p[written:min(written+largeBuffer, len(p))]
		buffer := takeBuffer(len(part))
		n := copy(*buffer, part)
		if err := c.perform(func() error {
			defer giveBuffer(buffer)
			_, err := c.channel.Write((*buffer)[:n])
			return err
		}); err != nil {
			return written, err
		}
		if written += n; written == len(p) {
			return written, nil
		}
	}
}

// CloseWrite tells the other side that nothing more is written. Reads go on.
func (c *channelConn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.perform(c.channel.CloseWrite)
}

// endWrites is CloseWrite for a connection that is closed here. It does nothing while a Write blocks.
func (c *channelConn) endWrites() {
	if c.callMu.TryLock() {
		defer c.callMu.Unlock()
		_ = c.channel.CloseWrite()
	}
}

// perform runs a call that writes to the channel, and waits for it until the deadline or Close.
func (c *channelConn) perform(call func() error) error {
	expired := c.writeDeadline.expired()
	switch {
	case isClosed(c.closed):
		return c.opError("write", net.ErrClosed)
	case isClosed(expired):
		return c.opError("write", os.ErrDeadlineExceeded)
	case c.writeErr != nil:
		return c.writeErr
	}
	result := make(chan error, 1)
	if !c.link.tasks.start(func() {
		c.callMu.Lock()
		defer c.callMu.Unlock()
		result <- call()
	}) {
		return c.link.lost(net.ErrClosed)
	}
	var err error
	select {
	case err = <-result:
		if err == nil {
			return nil
		}
		if err = c.opError("write", syscall.EPIPE); c.link.isLost() {
			err = c.link.lost(syscall.EPIPE)
		}
	case <-expired:
		err = c.opError("write", os.ErrDeadlineExceeded)
	case <-c.closed:
		err = c.opError("write", net.ErrClosed)
	}
	c.writeErr = err
	return err
}

// Close implements net.Conn. It does not wait for the server.
func (c *channelConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.readDeadline.set(time.Time{}) // stops the timers
		c.writeDeadline.set(time.Time{})
		c.link.tasks.start(c.end)
	})
	return nil
}

// LocalAddr implements net.Conn.
func (c *channelConn) LocalAddr() net.Addr { return c.link.net.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *channelConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *channelConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *channelConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readDeadline, t) }

// SetWriteDeadline implements net.Conn.
func (c *channelConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeDeadline, t) }

func (c *channelConn) setDeadline(d *deadline, t time.Time) error {
	if isClosed(c.closed) {
		return c.opError("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

func (c *channelConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.remote.Network(), Addr: c.remote, Err: err}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// deadline ends calls at a time that may change while they wait. The zero value has no time.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed when the time has passed
}

// expired returns a channel that is closed when the time has passed.
func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

// set changes the time; the zero time is none. Calls that wait already obey it.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer's function closes it, without the mutex
	}
	d.timer = nil
	if isClosed(d.passed) {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(passed) })
		return
	}
	close(passed)
}
