package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/listen"
)

// openListener listens on a TCP address, with the socket that sockets has inherited for it, if there is one. flag is the flag
// that sets the port, for the hint of an error; see newListenError.
func openListener(ctx context.Context, sockets *listen.Set, name, address, flag string) (net.Listener, error) {
	l, err := sockets.Listen(ctx, name, address)
	if err != nil {
		return nil, newListenError(address, flag, err)
	}
	return l, nil
}

// newListenError describes an error of net.Listen. It is of kind Invalid if the address is wrong, and otherwise of kind
// Conflict.
func newListenError(address, flag string, err error) error {
	const ownAddress = "use an address of this machine, such as 127.0.0.1"
	const addressForm = "write the host and the port, such as 127.0.0.1:9100"
	unknown, isUnknown := errors.AsType[*net.DNSError](err) // a host or the name of a port
	if host, _, _ := net.SplitHostPort(address); isUnknown && unknown.Name == host {
		return &dstack.Error{Kind: dstack.Invalid, Message: "cannot find the host " + host, Hint: ownAddress, Cause: err}
	}
	e := &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("cannot listen on %s: %s", address, human.DescribeFailure(err)),
		Hint: "choose another address or port with " + flag, Cause: err}
	malformed, isMalformed := errors.AsType[*net.AddrError](err)
	switch {
	case isMalformed:
		e.Message = fmt.Sprintf("cannot listen on %s: %s", address, malformed.Err)
		e.Kind, e.Hint = dstack.Invalid, addressForm
	case isUnknown:
		e.Message = fmt.Sprintf("cannot listen on %s: %s", address, unknown.Err)
		e.Kind, e.Hint = dstack.Invalid, addressForm
	case errors.Is(err, syscall.EADDRINUSE):
		e.Hint = "another server may be running there; choose another port with " + flag
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Kind, e.Hint = dstack.Invalid, ownAddress
	}
	return e
}
