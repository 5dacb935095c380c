package frontend

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of the connections of clients.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// pingInterval is after which silence an HTTP/2 connection is checked, and pingTimeout how long that takes: streams
	// to a machine that vanished end then.
	pingInterval = 30 * time.Second
	pingTimeout  = 15 * time.Second
)

// ServerOptions configure NewServer.
type ServerOptions struct {
	ConnContext func(context.Context, net.Conn) context.Context
	BaseContext func(net.Listener) context.Context
	Log         *slog.Logger
}

// NewServer returns a server with the limits that all ports of dstack have.
func NewServer(handler http.Handler, o ServerOptions) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // of balancers that end TLS and forward gRPC
	return &http.Server{
		Handler: handler, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: o.BaseContext, ConnContext: o.ConnContext,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		HTTP2:    &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingTimeout},
	}
}
