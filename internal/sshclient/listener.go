package sshclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// forwardedChannel is the type of the channels that a server opens for connections to a port where it listens for us.
const forwardedChannel = "forwarded-tcpip"

// loopback is where the machine listens. With GatewayPorts=yes, sshd listens on all addresses instead.
const loopback = "127.0.0.1"

// maxForwarded bounds the connections of one listener: every user of the machine may open some.
const maxForwarded = 256

// Listener accepts connections that programs of the machine make to a port of its loopback interface.
type Listener struct {
	link   *link
	port   int
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
	open   atomic.Int32
}

var _ net.Listener = (*Listener)(nil)

// Listen makes the machine listen on a port of its loopback interface. Accept fails once the SSH connection is lost: call
// Listen again then. The error is of kind Conflict if the machine does not listen, which has two reasons that the server does
// not tell apart: the port is in use, or sshd does not allow it. The remote address of the connections says nothing.
func (c *Client) Listen(ctx context.Context, port int) (*Listener, error) {
	l, err := c.acquire(ctx, wish{})
	if err != nil {
		return nil, err
	}
	listener := &Listener{link: l, port: port, conns: make(chan net.Conn), closed: make(chan struct{})}
	if !l.addListener(listener) {
		c.release(l, false, false)
		return nil, stepFailure(dstack.Conflict, "", nil, fmt.Sprintf("this server listens on port %d of %s already", port, c.name()), "")
	}
	accepted, err := l.request(ctx, "tcpip-forward", listener.payload())
	switch {
	case err == nil && accepted:
		return listener, nil
	case err == nil:
		err = stepFailure(dstack.Conflict, "", nil, fmt.Sprintf("the SSH server of %s does not listen on port %d for this server", c.name(), port),
			"see with `ss -ltnp` on the host that nothing else has the port; sshd has to allow AllowTcpForwarding (yes or remote) and "+
				"PermitListen for "+c.options.Login.User)
	case ctx.Err() != nil:
		err = stopped(ctx, c.name(), nil)
	default:
		err = l.lost(err)
	}
	_ = listener.Close()
	return nil, err
}

func (l *Listener) payload() []byte {
	return ssh.Marshal(struct {
		Address string
		Port    uint32
	}{loopback, uint32(l.port)})
}

// request sends a global request and returns whether the server granted it.
func (l *link) request(ctx context.Context, name string, payload []byte) (bool, error) {
	type result struct {
		isGranted bool
		err       error
	}
	results := make(chan result, 1)
	if !l.tasks.start(func() {
		isGranted, _, err := l.ssh.SendRequest(name, true, payload)
		results <- result{isGranted, err}
	}) {
		return false, l.lost(nil)
	}
	select {
	case r := <-results:
		return r.isGranted, r.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.link.done:
		return nil, l.link.lost(nil)
	}
}

// Close ends the listening. Connections that were accepted stay open.
func (l *Listener) Close() error {
	l.close.Do(func() {
		close(l.closed)
		l.link.removeListener(l.port)
		l.link.client.release(l.link, false, false)
		l.link.tasks.start(func() { _, _, _ = l.link.ssh.SendRequest("cancel-tcpip-forward", true, l.payload()) })
	})
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return hostAddr(net.JoinHostPort(loopback, strconv.Itoa(l.port))) }

// hostAddr is an address of another machine. It is not a TCP address, so that nobody takes its loopback for ours.
type hostAddr string

// Network implements net.Addr.
func (hostAddr) Network() string { return "ssh" }

// String implements net.Addr.
func (a hostAddr) String() string { return "ssh:" + string(a) }

// addListener reports false if there is a listener for the port.
func (l *link) addListener(listener *Listener) bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if l.listeners[listener.port] != nil {
		return false
	}
	if l.listeners == nil {
		l.listeners = map[int]*Listener{}
	}
	l.listeners[listener.port] = listener
	return true
}

func (l *link) removeListener(port int) {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	delete(l.listeners, port)
}

// acceptForwarded takes a connection to a port where the server listens for us, and refuses all other channels.
func (l *link) acceptForwarded(offer ssh.NewChannel) {
	listener, err := l.findListener(offer)
	if err != nil {
		_ = offer.Reject(ssh.Prohibited, "not allowed")
		return
	}
	if listener.open.Add(1) > maxForwarded {
		listener.open.Add(-1)
		_ = offer.Reject(ssh.ResourceShortage, "too many connections")
		return
	}
	isStarted := l.tasks.start(func() {
		defer listener.open.Add(-1)
		channel, requests, err := offer.Accept()
		if err != nil {
			return
		}
		l.tasks.start(func() { l.handOver(listener, channel) })
		ssh.DiscardRequests(requests) // until the channel is closed
	})
	if !isStarted {
		listener.open.Add(-1)
	}
}

// handOver gives a connection to Accept.
func (l *link) handOver(listener *Listener, channel ssh.Channel) {
	conn := newChannelConn(l, channel, channel)
	conn.remote = hostAddr("forwarded")
	conn.explainEnd = func(err error) error {
		if l.isLost() {
			return l.lost(err)
		}
		return err
	}
	conn.end = func() { _ = channel.Close() }
	conn.start()
	select {
	case listener.conns <- conn:
	case <-listener.closed:
		_ = conn.Close()
	case <-l.done:
		_ = conn.Close()
	}
}

var errNotForwarded = errors.New("not a connection to a port of ours")

func (l *link) findListener(offer ssh.NewChannel) (*Listener, error) {
	if offer.ChannelType() != forwardedChannel {
		return nil, errNotForwarded
	}
	var target struct {
		Address    string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(offer.ExtraData(), &target); err != nil {
		return nil, err
	}
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if found := l.listeners[int(target.Port)]; found != nil {
		return found, nil
	}
	return nil, errNotForwarded
}
