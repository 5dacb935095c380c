package sshclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// The types of channels.
const (
	sessionChannel = "session"
	tcpChannel     = "direct-tcpip"
	unixChannel    = "direct-streamlocal@openssh.com"
)

// maxOpenTries is how often a channel is opened when connections are lost or full meanwhile. Nothing was sent before it is
// open.
const maxOpenTries = 4

// Dial opens a connection from the machine to an address of its network. The network is "tcp" with an IP address and a port,
// never a name, or "unix" with a path. The error is of kind Unavailable if nothing answers there, and of kind Unsupported if
// the SSH server refuses to forward; it does not say why, and for a socket it says no more when there is none. The connection
// has deadlines and CloseWrite. A Read after the SSH connection was lost fails with Unavailable, and never with io.EOF; but
// some servers end idle connections (ChannelTimeout) with io.EOF.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.dial(ctx, network, address, false)
}

func (c *Client) dial(ctx context.Context, network, address string, isQuick bool) (net.Conn, error) {
	kind, payload, remote, err := forwardRequest(network, address)
	if err != nil {
		return nil, err
	}
	l, channel, requests, err := c.openChannel(ctx, kind, payload, wish{isQuick: isQuick})
	if err != nil {
		return nil, c.explainForward(address, kind, err)
	}
	isStarted := l.tasks.start(func() {
		ssh.DiscardRequests(requests) // such as keep-alive messages; until the channel is closed
		c.release(l, false, false)
	})
	if !isStarted {
		c.release(l, false, false)
		return nil, l.lost(nil)
	}
	conn := newChannelConn(l, channel, channel)
	conn.remote = remote
	conn.explainEnd = func(err error) error {
		if l.isLost() {
			return l.lost(io.ErrUnexpectedEOF)
		}
		return err
	}
	conn.end = func() { _ = channel.Close() }
	conn.start()
	return conn, nil
}

// forwardRequest returns the request for a forwarded connection.
func forwardRequest(network, address string) (kind string, payload []byte, remote net.Addr, err error) {
	switch network {
	case "unix":
		return unixChannel, ssh.Marshal(struct {
			Path, Reserved string
			Zero           uint32
		}{Path: address}), &net.UnixAddr{Name: address, Net: "unix"}, nil
	case "tcp":
		target, err := netip.ParseAddrPort(address)
		if err != nil {
			return "", nil, nil, stepFailure(dstack.Invalid, "", err,
				fmt.Sprintf("%q is not an IP address and a port: names are not resolved on the machine", address), "")
		}
		return tcpChannel, ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{target.Addr().Unmap().String(), uint32(target.Port()), "127.0.0.1", 0}), net.TCPAddrFromAddrPort(target), nil
	default:
		return "", nil, nil, stepFailure(dstack.Invalid, "", nil, fmt.Sprintf("the network %q is neither tcp nor unix", network), "")
	}
}

// openChannel opens a channel on a connection that has a place for it.
func (c *Client) openChannel(ctx context.Context, kind string, payload []byte, w wish) (*link, ssh.Channel, <-chan *ssh.Request, error) {
	for try := 1; ; try++ {
		l, err := c.acquire(ctx, w)
		if err != nil {
			return nil, nil, nil, err
		}
		open := l.open
		if w.isQuick {
			open = l.openQuickly
		}
		channel, requests, err := open(ctx, kind, payload)
		var refused *ssh.OpenChannelError
		switch {
		case err == nil:
			return l, channel, requests, nil
		case errors.Is(err, errSilent):
			return nil, nil, nil, err
		case ctx.Err() != nil:
			return nil, nil, nil, stopped(ctx, c.name(), nil)
		case errors.As(err, &refused):
			if refused.Message != openFailed || !c.isRefusedAsFull(l, w.sessions > 0) || try == maxOpenTries {
				return nil, nil, nil, err
			}
		default: // the connection was lost
			_ = l.net.Close()
			if try == maxOpenTries {
				return nil, nil, nil, l.lost(err)
			}
			select {
			case <-l.done: // it is not acquired again
			case <-ctx.Done():
			}
		}
	}
}

// openFailed is what sshd answers when it refuses a channel for a reason of its own: its settings, too many sessions or open
// files, and a socket that cannot be opened. When a connection to an address fails, it sends the words of the system.
const openFailed = "open failed"

// systemErrors are the words of sshd's system for failed connections, as far as callers tell them apart.
var systemErrors = map[string]error{
	"Connection refused":     syscall.ECONNREFUSED,
	"Connection timed out":   syscall.ETIMEDOUT,
	"No route to host":       syscall.EHOSTUNREACH,
	"Network is unreachable": syscall.ENETUNREACH,
}

// refusedChannel returns the answer of a server that did not open a channel. An error that is explained already is another
// server's: the jump host did not open the connection to this one.
func refusedChannel(err error) (*ssh.OpenChannelError, bool) {
	if _, isExplained := errors.AsType[*dstack.Error](err); isExplained {
		return nil, false
	}
	return errors.AsType[*ssh.OpenChannelError](err)
}

// explainForward returns the error for a connection that the server did not open.
func (c *Client) explainForward(address, kind string, err error) error {
	refused, ok := refusedChannel(err)
	switch {
	case !ok:
		return err
	case kind == unixChannel:
		return stepFailure(dstack.Unsupported, "", err, fmt.Sprintf("%s does not open its socket %s for %s over SSH", c.name(), address,
			c.options.Login.User), "sshd has to allow AllowStreamLocalForwarding and AllowTcpForwarding, and the user to open the socket")
	case refused.Message == openFailed || refused.Reason != ssh.ConnectionFailed:
		return stepFailure(dstack.Unsupported, "", err, fmt.Sprintf("the SSH server of %s refuses connections to %s", c.name(), address),
			"sshd has to allow AllowTcpForwarding (and PermitOpen) for "+c.options.Login.User)
	default:
		return stepFailure(dstack.Unavailable, "", errors.Join(err, systemErrors[refused.Message]),
			fmt.Sprintf("%s cannot connect to %s: %s", c.name(), address, refused.Message), "")
	}
}
