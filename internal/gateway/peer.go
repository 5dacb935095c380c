package gateway

import (
	"context"
	"net"
	"syscall"
	"time"
)

// peerEvery is how often a client that may have left is looked for.
const peerEvery = time.Second

type peerKey struct{}

// WithConn keeps a connection in the context of its requests: it is an
// http.Server's ConnContext. With it the gateway notices that a client has
// left whose body nobody reads while it waits, as far as the system can tell:
// net/http looks for that only once a body was read to its end. Without it,
// such a request waits on, and is sent. So does one whose body is longer than
// what the connection itself holds: its end lies behind what nobody reads. To
// read it would take memory for everybody who waits.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return context.WithValue(ctx, peerKey{}, raw)
		}
	}
	return ctx
}

// peer is what tells whether the client of a request is there, or nil. It is
// for bodies that stream; what is without a body or read whole net/http watches.
func (x *exchange) peer() syscall.RawConn {
	if x.in == nil || x.in.isComplete() || !tellsHangUps {
		return nil
	}
	conn, _ := x.r.Context().Value(peerKey{}).(syscall.RawConn)
	return conn
}
