package gateway

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepsConns reports whether connections to replicas are kept by replicaPool, which needs quietCheck and unacknowledged.
const keepsConns = true

// quietCheck finds out whether something has arrived at a connection, without reading it.
type quietCheck struct {
	check   func(fd uintptr) // peek
	isQuiet bool
}

func (q *quietCheck) run(c syscall.RawConn) bool {
	q.isQuiet = false
	return c.Control(q.check) == nil && q.isQuiet
}

func (q *quietCheck) peek(fd uintptr) {
	var b [1]byte
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	q.isQuiet = errors.Is(err, unix.EAGAIN)
}

// unacknowledged returns how many bytes were sent that the other side has not acknowledged.
func unacknowledged(c syscall.RawConn) (n int) {
	err := c.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	if err != nil {
		return 0
	}
	return n
}
