package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
)

// PortState is the result of connecting to a port.
type PortState int

// Every result. PortSlow says nothing about the server: the connection timed out,
// as it does when the accept queue of a busy server is full, or the attempt failed
// before it reached the server.
const (
	PortRefused PortState = iota
	PortAccepted
	PortSlow
)

// Timeouts of CheckPort.
const (
	localDialTimeout  = 150 * time.Millisecond // both ends of the connection are on this machine
	remoteDialTimeout = 2 * time.Second
	proxyTimeout      = 300 * time.Millisecond // time for the proxy to notice that the container refuses
)

// CheckPort connects to a replica's endpoint and closes the connection. With proxied,
// a port proxy accepts connections on behalf of the replica, as Docker's does: the
// port counts as open only if the proxy does not close the connection within
// proxyTimeout.
func CheckPort(ctx context.Context, dialer *dial.Dialer, endpoint dstack.Endpoint, proxied bool) PortState {
	return CheckPortThrough(ctx, dialer, endpoint, func(net.Conn) bool { return proxied })
}

// CheckPortThrough is CheckPort where only the connection tells whether a proxy accepted it.
func CheckPortThrough(ctx context.Context, dialer *dial.Dialer, endpoint dstack.Endpoint, isProxied func(net.Conn) bool) PortState {
	timeout := localDialTimeout
	if endpoint.Host != "" {
		timeout = remoteDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dialer.Dial(ctx, endpoint)
	if err != nil {
		return classifyDialError(err)
	}
	defer conn.Close()
	if !isProxied(conn) {
		return PortAccepted
	}
	_ = conn.SetReadDeadline(time.Now().Add(proxyTimeout))
	n, err := conn.Read(make([]byte, 1))
	if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		return PortAccepted
	}
	return PortRefused
}

func classifyDialError(err error) PortState {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return PortRefused // also by a port of another host, whose dialer says it in words of its own
	}
	if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
		return PortSlow
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return PortSlow // a limit of this process, not a refusal by the replica
	}
	if dstack.KindOf(err) == dstack.Unavailable {
		return PortSlow // the replica's host cannot be reached
	}
	return PortRefused
}
