package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// PortState is what an address says when it is called.
type PortState int

// Every answer there is. Slow is no refusal: a busy server whose queue is full
// answers so, and is not to be called broken for it.
const (
	PortRefused PortState = iota
	PortAccepted
	PortSlow
)

// Limits of one call. Both ends are on this machine or a bridge of it.
const (
	dialTimeout  = 150 * time.Millisecond
	proxyTimeout = 300 * time.Millisecond // on a busy machine the proxy takes its time to find out
)

// CheckPort connects to a replica and hangs up. proxied says that something stands
// before it which accepts for it (Docker's port proxy), and that a connection
// counts only once it has lasted a moment.
func CheckPort(ctx context.Context, address string, proxied bool) PortState {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return classifyDialError(err)
	}
	defer conn.Close()
	if !proxied {
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
	if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
		return PortSlow
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return PortSlow // our trouble, not the replica's
	}
	return PortRefused
}
