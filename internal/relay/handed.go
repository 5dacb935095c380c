package relay

import (
	"io"
	"net"
)

// handedConn is a connection that was handed over: what was read of it already is read first.
type handedConn struct {
	*net.TCPConn
	prefix []byte // what is left of it
}

func newHandedConn(conn net.Conn, prefix []byte) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || len(prefix) == 0 {
		return conn
	}
	return &handedConn{TCPConn: tcp, prefix: prefix}
}

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
