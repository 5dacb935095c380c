package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"dstack/internal/dstack"
)

// openListener listens on a TCP address. flag is the flag that sets the port, for the hint of an error; see
// newListenError.
func openListener(ctx context.Context, address, flag string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, newListenError(address, flag, err)
	}
	return l, nil
}

// newListenError describes an error of net.Listen. It is of kind Invalid if the address is wrong, and otherwise of kind
// Conflict.
func newListenError(address, flag string, err error) error {
	const ownAddress = "use an address of this machine, such as 127.0.0.1"
	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return &dstack.Error{Kind: dstack.Invalid, Message: "cannot find the host " + unknown.Name, Hint: ownAddress, Cause: err}
	}
	reason := err
	if op, ok := errors.AsType[*net.OpError](err); ok {
		reason = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](reason); ok {
		reason = call.Err
	}
	e := &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("cannot listen on %s: %v", address, reason),
		Hint: "choose another address or port with " + flag, Cause: err}
	switch malformed, ok := errors.AsType[*net.AddrError](err); {
	case ok:
		e.Kind, e.Message = dstack.Invalid, fmt.Sprintf("cannot listen on %s: %s", address, malformed.Err)
		e.Hint = "write the host and the port, such as 127.0.0.1:9100"
	case errors.Is(err, syscall.EADDRINUSE):
		e.Hint = "another server may be running there; choose another port with " + flag
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Kind, e.Hint = dstack.Invalid, ownAddress
	}
	return e
}
