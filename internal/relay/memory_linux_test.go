package relay

import (
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// heldMemory returns the bytes of heap and stacks that are in use.
func heldMemory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// rawClients opens connections that Go's runtime does not know, so that only the relay's memory is measured, and sends a
// request over each.
func rawClients(t *testing.T, address string, count int, request string) (fds []int) {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	to := &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
	})
	for range count {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := syscall.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Write(fd, []byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	return fds
}

// TestMemory holds many exchanges that wait, and many streams, and measures what one takes.
func TestMemory(t *testing.T) {
	const count = 1000
	request := "GET /path HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Some-Header: some usual value\r\n", 10) + "\r\n"
	for _, c := range []struct {
		name    string
		streams bool
		most    uint64
	}{{"waiting", false, 4096}, {"streams", true, 5120}} {
		t.Run(c.name, func(t *testing.T) {
			l, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Bind(l, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Listen(l, 4096); err != nil {
				t.Fatal(err)
			}
			replica := listenerOf(t, l)
			r := newRig(t, replica.Addr().String(), Options{})
			if !c.streams {
				r.director.onNext(func(*Exchange, Event) Step { return Wait })
			}
			rawClients(t, r.address, 1, request)
			eventually(t, "the first exchange", func() bool { return r.relay.Counts().Exchanges == 1 })
			before := heldMemory()
			rawClients(t, r.address, count, request)
			eventually(t, "all exchanges", func() bool { return r.relay.Counts().Exchanges == count+1 })
			if c.streams {
				for range count + 1 {
					acceptRaw(t, replica, ok+chunked+"\r\n2\r\nhi\r\n")
				}
				time.Sleep(50 * time.Millisecond)
			}
			each := (heldMemory() - before) / count
			t.Logf("%d bytes each; a client's connection %d, a replica's %d", each, unsafe.Sizeof(clientConn{}), unsafe.Sizeof(replicaConn{}))
			if each > c.most {
				t.Errorf("%d bytes each, want at most %d", each, c.most)
			}
		})
	}
}

// acceptRaw takes a connection to a replica out of Go's hands, and sends the beginning of a response.
func acceptRaw(t *testing.T, l net.Listener, response string) {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, response); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(of uintptr) { fd, err = syscall.Dup(int(of)) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	t.Cleanup(func() { _ = syscall.Close(fd) })
}

// TestAllocations counts what a plain request allocates, on the client's side of the test too.
func TestAllocations(t *testing.T) {
	s := newReplicaServer(t)
	r := newRig(t, s.Addr().String(), Options{})
	client := r.dial()
	response := []byte(ok + "Content-Length: 2\r\n\r\nhi")
	client.send(get)
	replica := s.accept()
	replica.expect(get)
	request, room := []byte(get), make([]byte, 4096)
	exchange := func() {
		if _, err := replica.Write(response); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(response); {
			m, err := client.Read(room)
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if _, err := client.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(request); {
			m, err := replica.Read(room)
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	}
	exchange()
	if n := testing.AllocsPerRun(300, exchange); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}
