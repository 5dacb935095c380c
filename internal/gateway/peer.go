package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// peerInterval is how often a waiting request checks that its client is there.
const peerInterval = time.Second

type (
	connKey struct{}
	memoKey struct{}
)

// WithConn stores a connection in the context of its requests: it is meant to be
// an http.Server's ConnContext. With it the gateway detects that a client
// disconnects while its request waits with a body that is not read yet, where
// the operating system can tell; net/http detects that only once a body is read
// to its end. Without it such a request waits on, and is sent. So does a request
// whose body is longer than the connection's own buffers, because the end of the
// connection comes behind unread data: only the fast path reads it.
//
// Of a connection that the fast path handed over, the context has what was counted of its first request.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	if handed, ok := conn.(interface{ Memo() any }); ok {
		if memo, ok := handed.Memo().(*connMemo); ok {
			ctx = context.WithValue(ctx, memoKey{}, memo)
		}
	}
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return context.WithValue(ctx, connKey{}, raw)
		}
	}
	return ctx
}

// peerConn returns the connection to check for a disconnected client, or nil
// where net/http does so: without a body, and once the body is read.
func (p *proxyRequest) peerConn() syscall.RawConn {
	if p.body == nil || p.body.isComplete() || !canDetectHangUp {
		return nil
	}
	conn, _ := p.ctx().Value(connKey{}).(syscall.RawConn)
	return conn
}

// takeCounted returns, once, what the fast path counted of the request that it handed over; nil: nothing.
func takeCounted(ctx context.Context) *countedRequest {
	memo, _ := ctx.Value(memoKey{}).(*connMemo)
	if memo == nil {
		return nil
	}
	return memo.counted.Swap(nil)
}
