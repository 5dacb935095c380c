package podpath

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnacknowledged is how long what was sent may stay without an acknowledgement, before the connection counts as lost. Without it, a
// connection to a machine that is gone hangs for a quarter of an hour.
const maxUnacknowledged = 30 * time.Second

// limitUnacknowledged sets the limit of a connection that is being opened.
func limitUnacknowledged(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(maxUnacknowledged/time.Millisecond)) // every Linux that Go supports has it
	})
}
