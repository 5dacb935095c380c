package relay

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// newFullReplica listens with a queue that is full: what connects hangs, until accept is called.
func newFullReplica(t *testing.T) (l net.Listener, address string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	l = listenerOf(t, fd)
	for range 2 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	return l, l.Addr().String()
}

// TestOpenings_Hang gives attempts up that hang, and makes them anew while nothing was taken.
func TestOpenings_Hang(t *testing.T) {
	l, address := newFullReplica(t)
	o := newRecordingOpenings(4)
	r := newRig(t, address, Options{Openings: o, Limits: Limits{ConnectTimeout: 50 * time.Millisecond, OpenTimeout: 300 * time.Millisecond}})
	c := r.dial()
	begin := time.Now()
	c.send(get)
	c.expect("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Event: 5\r\n\r\n05")
	if took := time.Since(begin); took < 250*time.Millisecond || took > 5*time.Second {
		t.Fatalf("the request failed after %v", took)
	}
	if results := o.resultsAfter(t, 2); results[Hung] < 2 {
		t.Fatal("results", results)
	}
	c.send(get)
	time.Sleep(20 * time.Millisecond)
	for range 2 {
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	for { // attempts that were given up are there as well, and have ended
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		p.limit()
		if b, err := p.r.Peek(len(get)); err == nil && string(b) == get {
			p.serveOne(get)
			break
		}
	}
	c.expect(ok + empty)
}

// listenerOf returns a listener for a socket.
func listenerOf(t *testing.T, fd int) net.Listener {
	t.Helper()
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestNew_FreesLoops leaves no file descriptor where there are not enough of them for all loops.
func TestNew_FreesLoops(t *testing.T) {
	before := countFiles(t)
	next, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(next)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	lower := limit
	lower.Cur = uint64(next + 20)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{Loops: 10})
	if restored := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); restored != nil {
		t.Fatal(restored)
	}
	if err == nil {
		t.Fatal("there are enough file descriptors")
	}
	if after := countFiles(t); after > before {
		t.Errorf("%d file descriptors, %d before", after, before)
	}
}
