//go:build !linux

package eventloop

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// IsSupported reports whether the operating system has event loops.
const IsSupported = false

// Loop does nothing on this operating system.
type Loop struct {
	timers timers
	base   time.Time
	now    time.Time
}

// New returns ErrUnsupported.
func New(Options) (*Loop, error) { return nil, ErrUnsupported }

// Run returns ErrUnsupported.
func (l *Loop) Run(context.Context) error { return ErrUnsupported }

// Now returns the zero time.
func (l *Loop) Now() time.Time { return l.now }

// Send does nothing.
func (l *Loop) Send(Receiver, uint64) bool { return false }

func (l *Loop) armClock() {}

func (l *Loop) survive(any) {}

// Socket does nothing on this operating system.
type Socket struct {
	IsReadable, IsWritable, HasEnded, HasFailed bool
}

// Attach returns ErrUnsupported.
func (s *Socket) Attach(*Loop, int, Handler) error { return ErrUnsupported }

// Connect returns ErrUnsupported.
func (s *Socket) Connect(*Loop, netip.AddrPort, Handler) error { return ErrUnsupported }

// ConnectError returns ErrUnsupported.
func (s *Socket) ConnectError() error { return ErrUnsupported }

// IsOpen returns false.
func (s *Socket) IsOpen() bool { return false }

// Again does nothing.
func (s *Socket) Again() {}

// Read returns ErrUnsupported.
func (s *Socket) Read([]byte) (int, error) { return 0, ErrUnsupported }

// Write returns ErrUnsupported.
func (s *Socket) Write([]byte) (int, error) { return 0, ErrUnsupported }

// WriteTwo returns ErrUnsupported.
func (s *Socket) WriteTwo(_, _ []byte) (int, error) { return 0, ErrUnsupported }

// EndWrites does nothing.
func (s *Socket) EndWrites() {}

// Close does nothing.
func (s *Socket) Close() {}

// Reset does nothing.
func (s *Socket) Reset() {}

// Detach returns ErrUnsupported.
func (s *Socket) Detach() (net.Conn, error) { return nil, ErrUnsupported }

// AckedBytes returns nothing.
func (s *Socket) AckedBytes() (acked uint64, underway uint32) { return 0, 0 }

// TakeConn returns ErrUnsupported.
func TakeConn(net.Conn) (fd int, err error) { return 0, ErrUnsupported }

// CloseFD does nothing.
func CloseFD(int) {}
