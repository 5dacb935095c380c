package sshclient

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// freePort returns a port of this machine where nothing listens.
func freePort(t testing.TB) int {
	t.Helper()
	return int(netip.MustParseAddrPort(freeAddress(t)).Port())
}

func portAddress(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// echoForwarded gives back what each connection of a listener sends, until the listener fails. It sends the failure.
func echoForwarded(l *Listener) <-chan error {
	failed := make(chan error, 1)
	l.link.tasks.start(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			l.link.tasks.start(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				_, _ = io.WriteString(conn, "bye")
			})
		}
	})
	return failed
}

func dialPort(t testing.TB, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", portAddress(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestOpenSSH_ListensOnThePortOfTheMachine(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	c := s.client()
	port := freePort(t)
	l, err := c.Listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	failed := echoForwarded(l)
	for range 3 {
		checkEcho(t, dialPort(t, port))
	}
	if _, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
		t.Errorf("the address %s looks like one of this machine", l.Addr())
	}
	if _, err := c.Listen(t.Context(), port); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("listening twice: %v", err)
	}
	time.Sleep(2 * c.times.idle) // a listener keeps its connection
	open := dialPort(t, port)
	checkStarted(t, open)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	checkEcho(t, open) // what was accepted stays
	eventually(t, "the machine does not listen any more", func() bool {
		conn, err := net.Dial("tcp", portAddress(port))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

// checkStarted writes and reads one byte.
func checkStarted(t testing.TB, conn net.Conn) {
	t.Helper()
	buffer := make([]byte, 1)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, buffer); err != nil || buffer[0] != 'x' {
		t.Fatalf("read %q, %v", buffer, err)
	}
}

func TestOpenSSH_ListenIsRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		line string
		port int
	}{
		"the port is taken": {"", taken.Addr().(*net.TCPAddr).Port},
		"sshd forbids it":   {"AllowTcpForwarding local", freePort(t)},
	} {
		t.Run(name, func(t *testing.T) {
			c := startSSHD(t, test.line).client()
			_, err := c.Listen(t.Context(), test.port)
			refused, ok := errors.AsType[*dstack.Error](err)
			if !ok || refused.Kind != dstack.Conflict || !strings.Contains(refused.Hint, "AllowTcpForwarding") {
				t.Errorf("listening: %v", err)
			}
			if l, err := c.Listen(t.Context(), freePort(t)); (err == nil) != (test.line == "") {
				t.Errorf("another port: %v", err)
			} else if err == nil {
				_ = l.Close()
			}
		})
	}
}

func TestOpenSSH_ListenerEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	p := newProxy(t, s.address)
	login := s.login()
	login.Address = p.address
	c := newTestClient(t, Options{Login: login})
	port := freePort(t)
	l, err := c.Listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	failed := echoForwarded(l)
	checkEcho(t, dialPort(t, port))
	p.isCut.Store(true)
	if err := <-failed; dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("Accept on a lost connection: %v", err)
	}
	_ = l.Close()
	p.heal()
	again := freePort(t) // sshd holds the former port until it notices the loss
	l, err = c.Listen(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	echoForwarded(l)
	checkEcho(t, dialPort(t, again))
}
