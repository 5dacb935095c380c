package eventloop

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a TCP connection of a loop. Its owner embeds it, and calls Attach or Connect first. All methods are for the
// goroutine of the loop.
type Socket struct {
	// IsReadable says that a Read may return something: data, the end or an error.
	IsReadable bool
	// IsWritable says that a Write may succeed at least in part.
	IsWritable bool
	// HasEnded says that the peer has sent the end of its data. Data before it may not be read yet.
	HasEnded bool
	// HasFailed says that the connection was reset, or is closed in both directions.
	HasFailed bool

	isQueued   bool // in Loop.again
	isOpen     bool
	generation int32 // of the file descriptor's number
	fd         int
	loop       *Loop
	handler    Handler
}

// Attach adds a connection to a loop: fd is a socket that does not block, and belongs to the Socket from now on, also
// where Attach fails.
func (s *Socket) Attach(l *Loop, fd int, h Handler) error {
	l.generation++
	s.loop, s.fd, s.handler, s.generation, s.isOpen = l, fd, h, l.generation, true
	for fd >= len(l.sockets) {
		l.sockets = append(l.sockets, make([]*Socket, max(64, len(l.sockets)))...)
	}
	l.sockets[fd] = s
	event := unix.EpollEvent{Fd: int32(fd), Pad: s.generation,
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		s.Close()
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// Connect begins to open a connection. The handler is called once it is open, or has failed: see ConnectError. If
// Connect itself fails, nothing is open.
func (s *Socket) Connect(l *Loop, to netip.AddrPort, h Handler) error {
	fd, address, err := newSocket(to)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, address); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	return s.Attach(l, fd, h)
}

// newSocket makes a socket with the options that connections to replicas have.
func newSocket(to netip.AddrPort) (fd int, address unix.Sockaddr, err error) {
	family := unix.AF_INET6
	if to.Addr().Unmap().Is4() {
		family = unix.AF_INET
		address = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	} else {
		zone, err := zoneNumber(to.Addr().Zone())
		if err != nil {
			return 0, nil, err
		}
		address = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16(), ZoneId: zone}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		// As internal/dial has it: a peer that is gone is noticed within 35 seconds.
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			_ = unix.Close(fd)
			return 0, nil, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, address, nil
}

// zoneNumber returns the number of a network interface.
func zoneNumber(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// ConnectError returns why a connection could not be opened; nil: it is open.
func (s *Socket) ConnectError() error {
	value, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case value != 0:
		return os.NewSyscallError("connect", syscall.Errno(value))
	}
	return s.checkPeer()
}

// errToItself says that both ends of a connection are the same socket. Linux makes that where the random port of a client is that of
// a server which has gone: nothing listens there.
var errToItself = errors.New("connect: nothing listens there: the connection led to itself")

func (s *Socket) checkPeer() error {
	local, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	peer, err := unix.Getpeername(s.fd)
	if err != nil {
		return os.NewSyscallError("getpeername", err)
	}
	if !isSameAddress(local, peer) {
		return nil
	}
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // the port is for the server
	return errToItself
}

func isSameAddress(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

// noteEvents sets the fields that an event of epoll changes.
func (s *Socket) noteEvents(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.IsReadable = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.IsWritable = true
	}
	s.HasEnded = s.HasEnded || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	s.HasFailed = s.HasFailed || events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// IsOpen reports whether the socket is attached and not closed.
func (s *Socket) IsOpen() bool { return s.isOpen }

// Again makes the loop call the handler once more, after other sockets had their turn.
func (s *Socket) Again() {
	if !s.isQueued && s.isOpen {
		s.isQueued = true
		s.loop.again = append(s.loop.again, s)
	}
}

// Read reads the data that has arrived, without waiting. It returns 0 without an error if there is none, and io.EOF at
// the end.
func (s *Socket) Read(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), 0, 0, 0)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		s.IsReadable = errno == syscall.EINTR
		return 0, nil
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	if int(n) < len(p) && !s.HasEnded {
		s.IsReadable = false // it is drained: the kernel tells when there is more
	}
	return int(n), nil
}

// Write writes as much of p as the kernel takes, and returns how many bytes that is. The handler is called when there
// is room for the rest.
func (s *Socket) Write(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return s.noteWritten(int(n), len(p), errno)
}

// WriteTwo writes p and q, as Write does.
func (s *Socket) WriteTwo(p, q []byte) (int, error) {
	vectors := [2]unix.Iovec{{Base: unsafe.SliceData(p)}, {Base: unsafe.SliceData(q)}}
	vectors[0].SetLen(len(p))
	vectors[1].SetLen(len(q))
	header := unix.Msghdr{Iov: &vectors[0]}
	header.SetIovlen(2)
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&header)), unix.MSG_NOSIGNAL)
	return s.noteWritten(int(n), len(p)+len(q), errno)
}

func (s *Socket) noteWritten(n, length int, errno syscall.Errno) (int, error) {
	switch {
	case errno == syscall.EAGAIN:
		s.IsWritable = false
		return 0, nil
	case errno == syscall.EINTR:
		s.Again()
		return 0, nil
	case errno != 0:
		return 0, os.NewSyscallError("write", errno)
	}
	s.IsWritable = n == length
	return n, nil
}

// EndWrites tells the peer that no more data will follow.
func (s *Socket) EndWrites() { _ = unix.Shutdown(s.fd, unix.SHUT_WR) } // a peer that has gone need not know

// Close closes the connection. The handler is not called any more.
func (s *Socket) Close() {
	if fd, ok := s.detach(); ok {
		_ = unix.Close(fd) // also removes it from the epoll
	}
}

// Reset closes the connection and drops what was not delivered.
func (s *Socket) Reset() {
	if s.isOpen {
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.Close()
}

func (s *Socket) detach() (fd int, ok bool) {
	if !s.isOpen {
		return 0, false
	}
	s.isOpen, s.isQueued = false, false
	s.loop.sockets[s.fd] = nil
	return s.fd, true
}

// Detach takes the connection from the loop, for the packages of Go. The handler is not called any more.
func (s *Socket) Detach() (net.Conn, error) {
	fd, ok := s.detach()
	if !ok {
		return nil, net.ErrClosed
	}
	_ = unix.EpollCtl(s.loop.epoll, unix.EPOLL_CTL_DEL, fd, nil) // it is there
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	return net.FileConn(file)
}

// AckedBytes returns how many bytes the peer's system has acknowledged since the connection was opened, and how many are
// underway.
func (s *Socket) AckedBytes() (acked uint64, underway uint32) {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0
	}
	return info.Bytes_acked, info.Unacked
}

// TakeConn returns the file descriptor of a TCP connection of Go for Attach, and closes the connection, so that Go's
// runtime does not watch it any more. If it fails, the connection stays as it is.
func TakeConn(conn net.Conn) (fd int, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	if err := raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	if dupErr != nil {
		return 0, os.NewSyscallError("fcntl", dupErr)
	}
	_ = tcp.Close() // the copy keeps the connection
	return fd, nil
}

// CloseFD closes what TakeConn returned.
func CloseFD(fd int) { _ = unix.Close(fd) }

func rawWrite(fd int, p unsafe.Pointer, length int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(p), uintptr(length)) // a full eventfd wakes, too
}
