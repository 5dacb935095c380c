package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Answer is what an address says when it is called.
type Answer int

// Every answer there is. Slow is no refusal: a busy server whose queue is full
// answers so, and is not to be called broken for it.
const (
	Refused Answer = iota
	Accepted
	Slow
)

// Limits of one call. Both ends are on this machine or a bridge of it.
const (
	callLimit = 150 * time.Millisecond
	settle    = 300 * time.Millisecond // on a busy machine the proxy takes its time to find out
)

// Call connects to a replica and hangs up. proxied says that something stands
// before it which accepts for it (Docker's port proxy), and that a connection
// counts only once it has lasted a moment.
func Call(ctx context.Context, address string, proxied bool) Answer {
	dialer := net.Dialer{Timeout: callLimit}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return answerOf(err)
	}
	defer conn.Close()
	if !proxied {
		return Accepted
	}
	_ = conn.SetReadDeadline(time.Now().Add(settle))
	n, err := conn.Read(make([]byte, 1))
	if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		return Accepted
	}
	return Refused
}

func answerOf(err error) Answer {
	if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
		return Slow
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return Slow // our trouble, not the replica's
	}
	return Refused
}
