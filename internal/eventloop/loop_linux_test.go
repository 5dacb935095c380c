package eventloop

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startLoop runs a loop until the test ends. Calls of the function that it returns run in the loop's goroutine.
func startLoop(t *testing.T) (*Loop, func(func())) {
	t.Helper()
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return l, func(f func()) {
		called := make(chan struct{})
		if !l.Send(Func(func() { f(); close(called) }), 0) {
			t.Error("the loop has ended")
			return
		}
		<-called
	}
}

// expirer calls a function when a timer expires.
type expirer func()

func (e expirer) Expire(*Timer) { e() }

func TestTimers(t *testing.T) {
	l, do := startLoop(t)
	type expiry struct {
		timer int
		after time.Duration
	}
	expired := make(chan expiry, 100)
	timers, waits := make([]Timer, 40), make([]time.Duration, 40)
	var begin time.Time
	do(func() {
		begin = l.Now()
		for i := range timers {
			timers[i].To = expirer(func() { expired <- expiry{i, l.Now().Sub(begin)} })
			waits[i] = time.Duration(1+(i*7)%40) * 2 * time.Millisecond
			l.Set(&timers[i], waits[i])
		}
		l.Clear(&timers[3])
		l.Remove(&timers[4])
		waits[5], waits[6], waits[7] = 100*time.Millisecond, time.Millisecond, 120*time.Millisecond
		l.Set(&timers[5], waits[5]) // later
		l.Set(&timers[6], waits[6]) // earlier
		l.SetAt(&timers[7], begin.Add(waits[7]))
	})
	seen := map[int]bool{}
	for range len(timers) - 2 {
		e := <-expired
		if e.after < waits[e.timer] || seen[e.timer] || e.timer == 3 || e.timer == 4 {
			t.Errorf("timer %d expired after %v, want %v, once", e.timer, e.after, waits[e.timer])
		}
		seen[e.timer] = true
	}
	do(func() {
		if len(l.timers) > 1 || timers[3].IsSet() || len(expired) > 0 { // one that was cleared may be there
			t.Errorf("%d timers are left, %d expired", len(l.timers), len(expired))
		}
	})
}

// echoHandler sends back what arrives; where it is busy, it asks for another call all the time.
type echoHandler struct {
	Socket
	isBusy bool
}

func (h *echoHandler) Ready() {
	b := make([]byte, 100)
	if h.IsReadable {
		n, err := h.Read(b)
		if err != nil {
			h.Close()
			return
		}
		if _, err := h.Write(b[:n]); err != nil {
			h.Close()
			return
		}
	}
	if h.isBusy {
		h.Again()
	}
}

// attach gives a new connection to a loop, and returns its other end.
func attach(t *testing.T, l *Loop, do func(func()), h *echoHandler) net.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := TakeConn(other)
	if err != nil {
		t.Fatal(err)
	}
	do(func() {
		if err := h.Attach(l, fd, h); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// countTrips returns how many times a byte goes to and fro within a time.
func countTrips(t *testing.T, conn net.Conn, within time.Duration) (trips int) {
	t.Helper()
	b := make([]byte, 1)
	for end := time.Now().Add(within); time.Now().Before(end); trips++ {
		if _, err := conn.Write(b); err != nil {
			t.Error(err)
			return trips
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Error(err)
			return trips
		}
	}
	return trips
}

func TestLoop_Echoes(t *testing.T) {
	l, do := startLoop(t)
	conn := attach(t, l, do, &echoHandler{})
	if n := countTrips(t, conn, 50*time.Millisecond); n < 2 {
		t.Fatalf("%d round trips in 50 ms", n)
	}
}

// TestLoop_BusyOneLetsOthersRun has one processor for a loop that always has something to do, for another connection of the
// loop, and for goroutines that use the network.
func TestLoop_BusyOneLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l, do := startLoop(t)
	busy := &echoHandler{isBusy: true}
	_, _ = attach(t, l, do, busy).Write([]byte("x"))
	conn := attach(t, l, do, &echoHandler{})
	if n := countTrips(t, conn, 300*time.Millisecond); n < 3 {
		t.Errorf("%d round trips beside a busy connection in 300 ms", n)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var server sync.WaitGroup
	server.Go(func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	})
	plain, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n := countTrips(t, plain, 300*time.Millisecond); n < 3 {
		t.Errorf("%d round trips of goroutines beside a busy loop in 300 ms", n)
	}
	_ = plain.Close()
	server.Wait()
}

// TestLoop_WaitsWithoutProcessor lets loops wait, and measures that they use no time, and that a goroutine has the only
// processor meanwhile.
func TestLoop_WaitsWithoutProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 4 {
		l, do := startLoop(t)
		conn := attach(t, l, do, &echoHandler{})
		countTrips(t, conn, time.Millisecond)
	}
	runtime.GC()
	before, switches := usage(t)
	time.Sleep(300 * time.Millisecond)
	after, switchesAfter := usage(t)
	if used := after - before; used > 30*time.Millisecond || switchesAfter-switches > 150 {
		t.Errorf("waiting for 300 ms used %v of a processor and %d switches", used, switchesAfter-switches)
	}
}

// usage returns the time that the process has used, and how often its threads went to sleep.
func usage(t *testing.T) (time.Duration, int64) {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw
}

// TestLoop_SendAfterEnd reports that a message is not delivered, and delivers those that were sent before the end.
func TestLoop_SendAfterEnd(t *testing.T) {
	stopped := false
	l, err := New(Options{Stop: func() { stopped = true }})
	if err != nil {
		t.Fatal(err)
	}
	delivered := false
	l.Send(Func(func() { delivered = true }), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = l.Run(ctx)
	if !delivered || !stopped || l.Send(Func(func() {}), 0) {
		t.Fatalf("delivered %v, stopped %v", delivered, stopped)
	}
}

// TestConnectError_ToItself takes a connection whose both ends are one socket for one that was refused.
func TestConnectError_ToItself(t *testing.T) {
	l, do := startLoop(t)
	for _, local := range []unix.Sockaddr{&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}} {
		family := unix.AF_INET
		if _, is6 := local.(*unix.SockaddrInet6); is6 {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, local); err != nil {
			_ = unix.Close(fd)
			t.Logf("no such address here: %v", err)
			continue
		}
		to, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
		var s Socket
		do(func() {
			if err := s.Attach(l, fd, nothing{}); err != nil {
				t.Error(err)
			}
			if err := s.ConnectError(); !errors.Is(err, errToItself) {
				t.Errorf("%v, want %v", err, errToItself)
			}
			s.Close()
		})
	}
}

type nothing struct{}

func (nothing) Ready() {}
