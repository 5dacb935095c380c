package gateway

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const tellsHangUps = true

// hungUp says that the other side has closed the connection. It reads nothing
// and waits for nothing: what came before the end need not be read.
func hungUp(c syscall.RawConn) bool {
	there := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := c.Control(func(fd uintptr) {
		there[0].Fd = int32(fd)
		if _, err := unix.Poll(there, 0); err != nil {
			there[0].Revents = 0 // it is asked again soon
		}
	})
	return err == nil && there[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
