// Package listen holds the listening sockets of a process, and hands them to the process that replaces it.
//
// Both processes then share the sockets: the connections that arrive in between wait in the queue of the kernel, and
// whichever process accepts first serves them. No connection is refused.
package listen

import (
	"context"
	"net"
	"strings"
	"sync"
	"syscall"
)

// Set holds the listening TCP sockets of a process: those that it opened, and those that it inherited and did not use
// yet. The zero value is an empty set, ready to use, also by several goroutines at once.
type Set struct {
	mu        sync.Mutex
	open      []*Socket
	inherited []*Socket
}

// Socket is a listening socket.
type Socket struct {
	Name    string // what it is for, such as "server" or "https"
	Address string // the host and port that were asked for
	net.Listener
}

// Listen returns a listener at a TCP address: the inherited one, if there is one at that address, otherwise a new one.
// The caller closes it; after that, the address may be used again. An error is that of net.ListenConfig.
func (s *Set) Listen(ctx context.Context, name, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	socket := s.takeInherited(address)
	if socket == nil {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		socket = &Socket{Address: address, Listener: l}
	}
	socket.Name = name
	s.open = append(s.openSockets(), socket)
	return socket.Listener, nil
}

// takeInherited removes the inherited socket at an address from the set and returns it, or nil if there is none.
func (s *Set) takeInherited(address string) *Socket {
	for i, socket := range s.inherited {
		if socket.listensAt(address) {
			s.inherited = append(s.inherited[:i], s.inherited[i+1:]...)
			return socket
		}
	}
	return nil
}

// Inherit adds sockets of another process. They wait for a call of Listen with their address.
func (s *Set) Inherit(sockets ...*Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inherited = append(s.inherited, sockets...)
}

// CloseUnused closes the inherited sockets that nobody asked for. Until then, their clients wait for an answer. Call it
// once all addresses of the process are known.
func (s *Set) CloseUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, socket := range s.inherited {
		_ = socket.Close() // it is of no use
	}
	s.inherited = nil
}

// Sockets returns the open sockets and those that are inherited and not used yet.
func (s *Set) Sockets() []*Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = s.openSockets()
	return append(append([]*Socket{}, s.open...), s.inherited...)
}

// openSockets returns the sockets that Listen returned and that are not closed yet.
func (s *Set) openSockets() (open []*Socket) {
	for _, socket := range s.open {
		if raw, err := socket.rawConn(); err == nil && raw.Control(func(uintptr) {}) == nil {
			open = append(open, socket)
		}
	}
	return open
}

// listensAt reports whether the socket listens at an address. All forms of "every address of the machine" are the same.
func (s *Socket) listensAt(address string) bool {
	if s.Address == address {
		return !strings.HasSuffix(address, ":0") // which asks for any free port
	}
	wanted, err := net.ResolveTCPAddr("tcp", address)
	actual, isTCP := s.Addr().(*net.TCPAddr)
	if err != nil || !isTCP || wanted.Port == 0 || wanted.Port != actual.Port {
		return false
	}
	if isEveryAddress(wanted.IP) || isEveryAddress(actual.IP) {
		return isEveryAddress(wanted.IP) && isEveryAddress(actual.IP)
	}
	return wanted.IP.Equal(actual.IP) && wanted.Zone == actual.Zone
}

func isEveryAddress(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

// rawConn returns the access to the descriptor of the socket, which it leaves in its non-blocking mode.
func (s *Socket) rawConn() (syscall.RawConn, error) {
	conn, ok := s.Listener.(syscall.Conn)
	if !ok {
		return nil, net.ErrClosed
	}
	return conn.SyscallConn()
}
