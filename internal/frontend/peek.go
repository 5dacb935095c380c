package frontend

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peekByte waits for the first byte of a connection, and leaves it there. The read deadline of the connection limits it.
func peekByte(conn net.Conn) (byte, error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("the connection has no socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var first [1]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK)
		return failed != unix.EAGAIN && failed != unix.EINTR //nolint:errorlint // errors of system calls are not wrapped
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, io.EOF
	}
	return first[0], nil
}
