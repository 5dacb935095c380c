package sshclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestOpenSSH_DialsAddressesAndSockets(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	c := s.client()
	for network, address := range map[string]string{
		"tcp": startEcho(t, "tcp", "127.0.0.1:0"), "unix": startEcho(t, "unix", filepath.Join(s.dir, "echo.sock")),
	} {
		t.Run(network, func(t *testing.T) {
			conn, err := c.Dial(t.Context(), network, address)
			if err != nil {
				t.Fatal(err)
			}
			checkEcho(t, conn)
		})
	}
	if s.logins() != 1 {
		t.Errorf("%d logins", s.logins())
	}
}

// startEcho serves connections that get back what they send, and after its end, "bye".
func startEcho(t testing.TB, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
				_, _ = io.WriteString(conn, "bye")
			})
		}
	})
	return l.Addr().String()
}

// checkEcho talks to the server of startEcho, ends its own half, and closes the connection.
func checkEcho(t testing.TB, conn net.Conn) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Error(err)
		return
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hellobye" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestOpenSSH_OpensNoChannelForAPooledRequest: an http.Transport keeps its connections.
func TestOpenSSH_OpensNoChannelForAPooledRequest(t *testing.T) {
	t.Parallel()
	var conns sync.Map
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	server.Config.ConnState = func(c net.Conn, _ http.ConnState) { conns.Store(c, nil) }
	server.Start()
	defer server.Close()
	c := startSSHD(t).client()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.Dial(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	body := strings.Repeat("x", 200_000)
	for range 20 {
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Post(server.URL, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(got) != body || err != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	count := 0
	conns.Range(func(any, any) bool { count++; return true })
	if count != 1 || c.State().Channels != 1 {
		t.Errorf("%d connections, %d channels", count, c.State().Channels)
	}
}

// Rule 1: a refused socket has an error of its own kind, and commands work beside it.
func TestOpenSSH_Rule1_SocketIsRefused(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "AllowTcpForwarding no")
	c := s.client()
	socket := startEcho(t, "unix", filepath.Join(s.dir, "echo.sock"))
	_, err := c.Dial(t.Context(), "unix", socket)
	if dstack.KindOf(err) != dstack.Unsupported || !strings.Contains(err.Error(), "does not open its socket") {
		t.Errorf("the socket: %v", err)
	}
	_, err = c.Dial(t.Context(), "tcp", startEcho(t, "tcp", "127.0.0.1:0"))
	if dstack.KindOf(err) != dstack.Unsupported || !strings.Contains(err.Error(), "refuses connections to 127.0.0.1") {
		t.Errorf("the address: %v", err)
	}
	conn, err := c.Pipe(t.Context(), "cat; printf bye")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
}

func TestOpenSSH_DialWithoutListener(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	_, err := c.Dial(t.Context(), "tcp", freeAddress(t))
	if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "Connection refused") || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

// Rule 2: more commands than sshd allows on a connection get further connections, and the last place is left to Run.
func TestOpenSSH_Rule2_ManySessions(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"as usual": 10, "fewer": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSSHD(t, fmt.Sprintf("MaxSessions %d", limit))
			c := s.client()
			var conns []net.Conn
			for range 12 - 6*(10-limit)/8 {
				conn, err := c.Pipe(t.Context(), "cat; printf bye")
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			before := c.State().Connections
			if got, err := c.Run(t.Context(), "echo ok", nil); err != nil || string(got.Stdout) != "ok\n" {
				t.Errorf("a command beside them: %q, %v", got.Stdout, err)
			}
			if got := c.State(); got.Connections < 2 || limit == 10 && (got.Connections != 2 || before != 2) {
				t.Errorf("%d connections, before %d", got.Connections, before)
			}
			for _, conn := range conns {
				checkEcho(t, conn)
			}
			eventually(t, "the further connections close", func() bool { return c.State().Connections == 1 })
		})
	}
}

// Rule 2: without sessions, forwarding works, and commands are refused with the reason.
func TestOpenSSH_Rule2_NoSessions(t *testing.T) {
	t.Parallel()
	c := startSSHD(t, "MaxSessions 0").client()
	_, err := c.Run(t.Context(), "true", nil)
	if dstack.KindOf(err) != dstack.Unsupported || StepOf(err) != dstack.HostStepShell || !strings.Contains(err.Error(), "allows no commands") {
		t.Errorf("got %v, step %q", err, StepOf(err))
	}
	conn, err := c.Dial(t.Context(), "tcp", startEcho(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
}

// Rule 3: sshd of OpenSSH 9.2 delays the second piece of a streamed answer by 40 ms until a command has run on the
// connection, also on that to the jump host. Later versions do not; there, this test only checks that it is quick.
func TestOpenSSH_Rule3_StreamsAreQuick(t *testing.T) {
	t.Parallel()
	jumpServer, s := startSSHD(t), startSSHD(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(3 * time.Millisecond)
		_, _ = io.WriteString(w, "token")
	}))
	defer server.Close()
	jump := jumpServer.client()
	for name, c := range map[string]*Client{
		"directly": s.client(), "through a jump host": newTestClient(t, Options{Login: s.login(), Jump: jump}),
	} {
		transport := &http.Transport{DialContext: c.Dial}
		slow := 0
		const requests = 30
		for range requests {
			resp, err := (&http.Client{Transport: transport}).Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if time.Since(begin) > 30*time.Millisecond {
				slow++
			}
		}
		transport.CloseIdleConnections()
		if slow > requests/2 {
			t.Errorf("%s: %d of %d answers took more than 30 ms", name, slow, requests)
		}
	}
}

// Rule 4: names are refused, not resolved on the machine.
func TestRule4_OnlyAddresses(t *testing.T) {
	c := newTestClient(t, Options{Login: dstack.SSHLogin{Address: freeAddress(t)}})
	for _, address := range []string{"localhost:80", "127.0.0.1", "[::1%lo]", ""} {
		if _, err := c.Dial(t.Context(), "tcp", address); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := c.Dial(t.Context(), "udp", "127.0.0.1:1"); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("udp: %v", err)
	}
}

// A host whose port is closed behind a jump host is not reached; its SSH server has not refused anything.
func TestOpenSSH_ClosedPortBehindJumpHost(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	login := s.login()
	login.Address = freeAddress(t)
	c := newTestClient(t, Options{Login: login, Jump: s.client()})
	_, runErr := c.Run(t.Context(), "true", nil)
	_, dialErr := c.Dial(t.Context(), "tcp", "127.0.0.1:80")
	_, socketErr := c.Dial(t.Context(), "unix", "/run/docker.sock")
	for _, err := range []error{runErr, dialErr, socketErr} {
		if dstack.KindOf(err) != dstack.Unavailable || StepOf(err) != dstack.HostStepConnect ||
			!strings.Contains(err.Error(), "cannot be reached through its jump host") || !strings.Contains(err.Error(), "Connection refused") {
			t.Errorf("got %v, step %q", err, StepOf(err))
		}
	}
}

// Rule 4: the name of a host behind a jump host is resolved there.
func TestOpenSSH_Rule4_JumpHostResolvesNames(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	login := s.login()
	_, port, _ := net.SplitHostPort(s.address)
	login.Address = net.JoinHostPort("localhost.localdomain.invalid", port)
	jump := startSSHD(t).client()
	c := newTestClient(t, Options{Login: login, Jump: jump})
	if _, err := c.Run(t.Context(), "true", nil); dstack.KindOf(err) != dstack.Unavailable || StepOf(err) != dstack.HostStepConnect ||
		!strings.Contains(err.Error(), "cannot be resolved on the jump host") {
		t.Errorf("got %v", err)
	}
	login.Address = net.JoinHostPort("localhost", port)
	c = newTestClient(t, Options{Login: login, Jump: jump})
	if address, err := jump.resolve(t.Context(), login.Address); err != nil || strings.HasPrefix(address, "localhost") {
		t.Errorf("resolved to %q, %v", address, err)
	}
	if strings.HasPrefix(s.address, "127.") {
		if out, err := c.Run(t.Context(), "echo ok", nil); err != nil && !strings.Contains(err.Error(), "Connection refused") {
			t.Errorf("%q, %v", out.Stdout, err) // localhost may be ::1 there
		}
	}
}
