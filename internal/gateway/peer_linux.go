package gateway

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const canDetectHangUp = true

// hasHungUp reports whether the other side has closed the connection, also
// where unread data comes before the end. It reads nothing and does not block.
func hasHungUp(c syscall.RawConn) bool {
	state := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := c.Control(func(fd uintptr) {
		state[0].Fd = int32(fd)
		if _, err := unix.Poll(state, 0); err != nil {
			state[0].Revents = 0 // the next check follows soon
		}
	})
	return err == nil && state[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
