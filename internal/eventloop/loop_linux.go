package eventloop

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsSupported reports whether the operating system has event loops.
const IsSupported = true

// Loop waits for the events of its sockets, messages and timers, and calls their handlers. All methods but Send and Stop
// are for the goroutine of Run, or for the time before it.
type Loop struct {
	options Options
	epoll   int             // of all sockets
	parking int             // an epoll that contains epoll, only while the loop is parked
	parker  *os.File        // parking, in the poller of Go's runtime
	raw     syscall.RawConn // of parker
	wake    int             // an eventfd
	clock   int             // a timerfd
	events  [maxEvents]unix.EpollEvent

	sockets    []*Socket // by file descriptor
	again      []*Socket // whose handlers asked for another call
	generation int32     // of the latest socket
	timers     timers
	base       time.Time
	now        time.Time
	armed      int64 // when clock fires; 0: it does not

	lastPark    time.Time
	parkOver    func(uintptr) bool // isParkOver
	fruitless   int                // short waits in vain since the last useful one
	isParkBrief bool               // the present park only lets other goroutines run
	parkCalls   int                // of isParkOver by the present park
	parked      int                // how many events park found
	parkError   error
	canPoll     bool // the kernel has epoll_pwait2

	mu       sync.Mutex
	messages []message
	spare    []message
	isSent   bool // the eventfd was written since messages were taken
	isEnded  bool
}

// message is a message of Send with its receiver.
type message struct {
	to    Receiver
	value uint64
}

// New makes a loop. Run frees what it holds, also with a context that has ended.
func New(o Options) (*Loop, error) {
	l := &Loop{options: o, epoll: -1, parking: -1, wake: -1, clock: -1, base: time.Now()}
	l.now, l.lastPark, l.parkOver = l.base, l.base, l.isParkOver
	if err := l.open(); err != nil {
		l.free()
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

func (l *Loop) open() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.parking, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if l.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	for _, fd := range []int{l.wake, l.clock} {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return err
		}
	}
	if err := unix.EpollCtl(l.parking, unix.EPOLL_CTL_ADD, l.epoll, &unix.EpollEvent{Fd: int32(l.epoll)}); err != nil {
		return err
	}
	if err := unix.SetNonblock(l.parking, true); err != nil {
		return err
	}
	l.parker = os.NewFile(uintptr(l.parking), "epoll")
	if l.raw, err = l.parker.SyscallConn(); err != nil {
		return err
	}
	if err := l.parker.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("the runtime does not wait for an epoll: %w", err)
	}
	var noEvent unix.EpollEvent
	_, err = waitBriefly(l.epoll, []unix.EpollEvent{noEvent}, 0)
	l.canPoll = err == nil
	return nil
}

func (l *Loop) free() {
	if l.parker != nil {
		_ = l.parker.Close()
		l.parking = -1
	}
	for _, fd := range []int{l.epoll, l.parking, l.wake, l.clock} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Run serves until ctx ends, and returns its error. Then it closes all sockets and frees what the loop holds.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Send(Func(func() {}), 0) })
	defer stop()
	defer l.end()
	for ctx.Err() == nil {
		count, err := l.waitForEvents()
		if err != nil {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		l.now = time.Now()
		l.callHandlers(count)
		if len(l.again) > 0 {
			l.callAgain()
		}
		l.fireTimers()
	}
	return ctx.Err()
}

// end delivers the messages that were sent, and closes what is open.
func (l *Loop) end() {
	l.mu.Lock()
	l.isEnded = true
	l.mu.Unlock()
	l.receive()
	if l.options.Stop != nil {
		l.options.Stop()
	}
	for _, s := range l.sockets {
		if s != nil {
			s.Close()
		}
	}
	l.free()
}

func (l *Loop) callHandlers(count int) {
	for i := range count {
		e := &l.events[i]
		fd := int(e.Fd)
		switch fd {
		case l.wake:
			l.receive()
			continue
		case l.clock:
			l.armed = 0
			continue
		}
		if fd >= len(l.sockets) {
			continue
		}
		s := l.sockets[fd]
		if s == nil || s.generation != e.Pad { // it was closed by a handler of this round
			continue
		}
		s.noteEvents(e.Events)
		l.callReady(s.handler)
	}
}

// callAgain calls the handlers of sockets that have more to read.
func (l *Loop) callAgain() {
	round := len(l.again)
	for i := range round {
		s := l.again[i]
		if s.isQueued {
			s.isQueued = false
			l.callReady(s.handler)
		}
	}
	l.again = append(l.again[:0], l.again[round:]...)
}

// Now returns when the events that are handled now were received.
func (l *Loop) Now() time.Time { return l.now }

// Send makes the loop call to.Receive with a message. Any goroutine may call it at any time; after the end of the loop it
// does nothing and returns false.
func (l *Loop) Send(to Receiver, value uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isEnded {
		return false
	}
	l.messages = append(l.messages, message{to, value})
	if !l.isSent {
		l.isSent = true
		one := uint64(1)
		rawWrite(l.wake, unsafe.Pointer(&one), 8)
	}
	return true
}

// receive calls the receivers of all messages.
func (l *Loop) receive() {
	l.mu.Lock()
	messages := l.messages
	l.messages, l.isSent = l.spare[:0], false
	l.mu.Unlock()
	for i := range messages {
		l.deliver(messages[i])
		messages[i] = message{}
	}
	l.spare = messages
}

// The loop survives panics of what it calls: they are about one connection, and others have theirs.

func (l *Loop) callReady(h Handler) {
	defer l.survive(h)
	h.Ready()
}

func (l *Loop) deliver(m message) {
	defer l.survive(m.to)
	m.to.Receive(m.value)
}

func (l *Loop) survive(of any) {
	if l.options.Panicked == nil {
		return
	}
	if value := recover(); value != nil {
		l.options.Panicked(of, value)
	}
}

// waitForEvents returns how many events there are in l.events; 0 where the time is over.
func (l *Loop) waitForEvents() (int, error) {
	if l.now.Sub(l.lastPark) >= maxHold {
		return l.park(true)
	}
	if len(l.again) > 0 {
		return takeEvents(l.epoll, l.events[:])
	}
	if l.canPoll && l.fruitless < maxFruitless {
		count, err := waitBriefly(l.epoll, l.events[:], shortWait)
		if count != 0 || err != nil {
			l.fruitless = 0
			return count, err
		}
		l.fruitless++
	}
	return l.park(false)
}

// park waits in the poller of Go's runtime, as a Read of a net.Conn does: the goroutine has neither a thread nor a
// processor then. It returns how many events there are. If isBrief is set, it only lets other goroutines run.
func (l *Loop) park(isBrief bool) (int, error) {
	l.parkCalls, l.isParkBrief = 0, isBrief
	begin := time.Now()
	if err := l.raw.Read(l.parkOver); err != nil {
		return 0, err
	}
	if l.parkCalls > 1 {
		l.lastPark = time.Now()
		if l.lastPark.Sub(begin) < shortWait {
			l.fruitless = 0
		}
	}
	return l.parked, l.parkError
}

// isParkOver arms the epoll that Go's runtime watches at its first call, and disarms it once there are events. Linux
// may not report events that were there before (ep_modify, of an epoll that was ready already), so isParkOver looks for
// them itself.
func (l *Loop) isParkOver(fd uintptr) bool {
	if l.parkCalls++; l.parkCalls == 1 {
		l.parkError = epollModify(int(fd), l.epoll, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.epoll)})
		if l.parkError != nil {
			return true
		}
		if l.isParkBrief {
			one := uint64(1)
			rawWrite(l.wake, unsafe.Pointer(&one), 8)
			return false
		}
	}
	l.parked, l.parkError = takeEvents(l.epoll, l.events[:])
	if l.parked == 0 && l.parkError == nil {
		return false
	}
	_ = epollModify(int(fd), l.epoll, &unix.EpollEvent{Fd: int32(l.epoll)}) // it cannot fail
	return true
}

// waitBriefly is epoll_pwait2 without telling Go's scheduler. A signal ends it early. Kernels before 5.11 do not have it, and some
// sandboxes do not allow it.
func waitBriefly(epoll int, events []unix.EpollEvent, limit time.Duration) (int, error) {
	timeout := syscall.NsecToTimespec(int64(limit))
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&timeout)), 0, 0)
	return countEvents(n, errno)
}

// takeEvents takes the events that are there, without waiting.
func takeEvents(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), 0, 0, 0)
	return countEvents(n, errno)
}

// countEvents returns what a system call for events has returned. A signal is no error.
func countEvents(n uintptr, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EINTR:
		return 0, nil
	default:
		return 0, errno
	}
}

func epollModify(epoll, fd int, event *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_MOD, uintptr(fd),
		uintptr(unsafe.Pointer(event)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
