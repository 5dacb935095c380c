package relay

import (
	"bytes"
	"io"
	"net"
)

// handedConn is a connection that was handed over. It reads the bytes first that the relay had read.
type handedConn struct {
	*net.TCPConn
	prefix []byte // what is left of it
	memo   any

	// Of a response that has begun already:
	skipsHead bool   // the head that is written next is left out
	headTail  []byte // the end of the part of it that was written
	unsent    []byte // what is to be written first
}

func newHandedConn(conn net.Conn, handed handedConn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || len(handed.prefix) == 0 {
		return conn
	}
	handed.TCPConn = tcp
	return &handed
}

// Write writes to the connection. It leaves out the head of a response that has begun already.
func (c *handedConn) Write(p []byte) (int, error) {
	if len(c.unsent) > 0 {
		n, err := c.TCPConn.Write(c.unsent)
		if c.unsent = c.unsent[n:]; err != nil {
			return 0, err
		}
	}
	if !c.skipsHead {
		return c.TCPConn.Write(p)
	}
	head := append(c.headTail, p...)
	end := bytes.Index(head, headEnd)
	if end < 0 {
		c.headTail = bytes.Clone(head[max(0, len(head)-len(headEnd)+1):])
		return len(p), nil
	}
	skipped := end + len(headEnd) - len(c.headTail)
	c.skipsHead, c.headTail = false, nil
	n, err := c.TCPConn.Write(p[skipped:])
	return skipped + n, err
}

var headEnd = []byte("\r\n\r\n")

// ReadFrom reads from r and writes to the connection.
func (c *handedConn) ReadFrom(r io.Reader) (int64, error) {
	if c.skipsHead || len(c.unsent) > 0 {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	return c.TCPConn.ReadFrom(r)
}

// Memo returns Exchange.Memo of the exchanges on the connection.
func (c *handedConn) Memo() any { return c.memo }

// Read reads from the connection.
func (c *handedConn) Read(p []byte) (int, error) {
	if len(c.prefix) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.prefix)
	if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
		c.prefix = nil
	}
	return n, nil
}

// WriteTo writes to w what is read from the connection.
func (c *handedConn) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(c.prefix)
	c.prefix = c.prefix[n:]
	if err != nil || len(c.prefix) > 0 {
		return int64(n), err
	}
	c.prefix = nil
	rest, err := c.TCPConn.WriteTo(w)
	return int64(n) + rest, err
}
