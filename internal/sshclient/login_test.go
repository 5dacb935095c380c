package sshclient

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// run runs a command that has to work.
func run(t testing.TB, c *Client) {
	t.Helper()
	if got, err := c.Run(t.Context(), "echo ok", nil); err != nil || string(got.Stdout) != "ok\n" {
		t.Fatalf("got %q, %v", got.Stdout, err)
	}
}

// expectError runs a command that has to fail.
func expectError(t testing.TB, c *Client, kind dstack.Kind, step dstack.HostStep, words string) {
	t.Helper()
	_, err := c.Run(t.Context(), "true", nil)
	if dstack.KindOf(err) != kind || StepOf(err) != step || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v (%s, step %q), want %q (%s, step %q)", err, dstack.KindOf(err), StepOf(err), words, kind, step)
	}
}

func TestLogin_AddressDoesNotAnswer(t *testing.T) {
	t.Parallel()
	private, _ := newKey(t)
	for name, test := range map[string]struct{ address, want, wantHint string }{
		"nothing listens": {freeAddress(t), "cannot be reached: connection refused", "a firewall lets SSH through"},
		"no such name":    {"no-such-host.invalid:22", "its name cannot be resolved", "check the name"},
		"no port":         {"127.0.0.1", "cannot be reached", "check the address"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, Options{Login: dstack.SSHLogin{Address: test.address, PrivateKey: private}})
			expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, test.want)
			if hint := hintOf(c.State().Err); !strings.Contains(hint, test.wantHint) {
				t.Errorf("the hint is %q", hint)
			}
			if s := c.State(); s.IsConnected || s.Err == nil || !s.SilentSince.IsZero() {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestLogin_AnotherProtocol(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() { _ = l.Close() }()
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n" + strings.Repeat("x", 1000) + "\r\n\r\n"))
			serving.Go(func() { time.Sleep(100 * time.Millisecond); _ = conn.Close() })
		}
	})
	private, _ := newKey(t)
	c := newTestClient(t, Options{Login: dstack.SSHLogin{Address: l.Addr().String(), PrivateKey: private}})
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "does not answer as an SSH server")
}

// Rule 5: a server that accepts and says nothing does not hold a login up for ever.
func TestRule5_SilentServer(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{isSilent: true})
	c := s.client(t)
	c.times.handshake = 100 * time.Millisecond
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "the login did not end within 100ms")

	jump := newFakeServer(t).client(t)
	c = newTestClient(t, Options{Login: s.login(), Jump: jump})
	c.times.handshake = 100 * time.Millisecond
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "the login did not end within 100ms")
}

// Rule 8: at most eight logins at once towards one address, for all clients of a process.
func TestRule8_FewLoginsAtOnce(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{loginDelay: 20 * time.Millisecond})
	limits := newTestLimiter()
	var running sync.WaitGroup
	for range 30 {
		c := newTestClient(t, Options{Login: s.login(), Limits: limits})
		running.Go(func() {
			if _, err := c.Run(t.Context(), "true", nil); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxOnce > 8 || s.maxOnce < 2 || s.opened != 30 {
		t.Errorf("%d logins at once, %d in all", s.maxOnce, s.opened)
	}
}

// Rule 8: a dropped connection is followed by one more try after a short pause, then by a long pause.
func TestRule8_DroppedConnections(t *testing.T) {
	t.Parallel()
	t.Run("once", func(t *testing.T) {
		s := newFakeServer(t)
		s.set(faults{drop: 1})
		run(t, s.client(t))
	})
	t.Run("again and again", func(t *testing.T) {
		s := newFakeServer(t)
		s.set(faults{drop: 1000})
		limits := newTestLimiter()
		limits.pauses.lockedOut, limits.pauses.maxRefused = time.Minute, time.Minute
		for range 3 {
			c := newTestClient(t, Options{Login: s.login(), Limits: limits})
			expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "closes connections before the login")
			if next := time.Until(c.State().NextTry); next < 50*time.Second {
				t.Errorf("the next try is in %s", next)
			}
		}
		if accepted, _ := s.counts(); accepted != 2 {
			t.Errorf("%d connections", accepted)
		}
	})
}

// Rule 9: after a refused key, nothing tries again before the pause, which doubles. Other keys may.
func TestRule9_RefusedKey(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{refuse: true})
	limits := newTestLimiter()
	limits.pauses.refused, limits.pauses.maxRefused = 200*time.Millisecond, 10*time.Second
	var c *Client
	for range 5 {
		c = newTestClient(t, Options{Login: s.login(), Limits: limits})
		expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key SHA256:")
	}
	if accepted, _ := s.counts(); accepted != 1 {
		t.Errorf("%d connections", accepted)
	}
	time.Sleep(time.Until(c.State().NextTry) + time.Millisecond)
	for range 3 {
		expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key SHA256:")
	}
	if next := time.Until(c.State().NextTry); next < 200*time.Millisecond || next > 400*time.Millisecond {
		t.Errorf("the second pause is %s", next)
	}
	if accepted, _ := s.counts(); accepted != 2 {
		t.Errorf("%d connections", accepted)
	}
	s.set(faults{})
	login := s.login()
	other, _ := newKey(t)
	login.PrivateKey = login.PrivateKey + other
	run(t, newTestClient(t, Options{Login: login, Limits: limits}))
}

// Rule 9: a server that refused a key drops connections for some time. The user still reads the reason.
func TestRule9_TrueReasonStays(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{refuse: true})
	limits := newTestLimiter()
	limits.pauses.refused = time.Millisecond
	c := newTestClient(t, Options{Login: s.login(), Limits: limits})
	expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key")
	s.set(faults{drop: 1000})
	for range 3 {
		time.Sleep(2 * time.Millisecond)
		expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key")
	}
	if err := c.State().Err; dstack.KindOf(err) != dstack.Unauthorized {
		t.Errorf("state: %v", err)
	}
	s.set(faults{})
	eventually(t, "it logs in", func() bool { _, err := c.Run(t.Context(), "true", nil); return err == nil })
	if err := c.State().Err; err != nil {
		t.Errorf("state: %v", err)
	}
}

// Rule 9: a user who mended something does not wait for the pause, but tries at most every five seconds at an address.
func TestRule9_TryAgain(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{refuse: true})
	limits := newTestLimiter()
	limits.pauses.refused, limits.pauses.maxRefused, limits.pauses.forgiven = time.Minute, time.Hour, 50*time.Millisecond
	login := s.login()
	login.User = "bob"
	clients := []*Client{s.client(t), newTestClient(t, Options{Login: s.login(), Limits: limits}), newTestClient(t, Options{Login: login, Limits: limits})}
	clients[0].limits = limits
	for _, c := range clients[1:] {
		expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key")
	}
	begin := time.Now()
	for range 5 { // users who try again and again
		for _, c := range clients {
			c.TryAgain()
			expectError(t, c, dstack.Unauthorized, dstack.HostStepLogin, "refuses the key")
		}
	}
	if accepted, _ := s.counts(); accepted < 4 || accepted > 3+int(time.Since(begin)/limits.pauses.forgiven) {
		t.Errorf("%d connections in %s", accepted, time.Since(begin))
	}
	s.set(faults{})
	clients[0].TryAgain()
	run(t, clients[0])
	if limits := defaultPauses(); limits.forgiven != 5*time.Second {
		t.Errorf("the default is %s", limits.forgiven)
	}
}

// A pause of the address itself, such as after sshd locked it out, ends as well.
func TestRule9_TryAgainAfterALockout(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	limits := newTestLimiter()
	limits.pauses.lockedOut, limits.pauses.maxRefused = time.Minute, time.Minute
	c := newTestClient(t, Options{Login: s.login(), Limits: limits})
	s.set(faults{drop: 1000})
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "closes connections before the login")
	s.set(faults{})
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "closes connections before the login")
	c.TryAgain()
	run(t, c)
}

// Rule 9: pauses begin at 30 seconds and end at 10 minutes.
func TestRule9_Pauses(t *testing.T) {
	p := defaultPauses()
	var got []time.Duration
	for count := 1; count <= 7; count++ {
		got = append(got, doublePause(p.refused, count, p.maxRefused))
	}
	want := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("pause %d is %s, want %s", i+1, got[i], want[i])
		}
	}
}

// Rule 10: a login goes on when its caller gives up: connections that are left are penalized.
func TestRule10_LoginIsNotLeft(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{loginDelay: 200 * time.Millisecond})
	c := s.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, "true", nil); !errors.Is(err, context.DeadlineExceeded) || dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("got %v", err)
	}
	run(t, c)
	if accepted, opened := s.counts(); accepted != 1 || opened != 1 {
		t.Errorf("%d connections, %d logins", accepted, opened)
	}
}

// Rule 12: a login tries all its keys in one go.
func TestOpenSSH_Rule12_ManyKeys(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	login := s.login()
	login.PrivateKey = ""
	for range maxKeys - 1 {
		wrong, _ := newKey(t)
		login.PrivateKey += wrong
	}
	login.PrivateKey += s.key
	run(t, newTestClient(t, Options{Login: login}))
	login.PrivateKey += s.key
	expectError(t, newTestClient(t, Options{Login: login}), dstack.Invalid, dstack.HostStepLogin, "more than five private keys")
}

// Rules 15 and 16: no terminal and no variables are asked for.
func TestRules15And16_OnlyExec(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	c := s.client(t)
	run(t, c)
	if exec := s.count("exec"); exec != 2 || s.count("pty-req")+s.count("env") > 0 {
		t.Errorf("%d commands, %v", exec, s.requests)
	}
}

func TestClose_EndsEverything(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	c := s.client(t)
	echo, err := c.Dial(t.Context(), "tcp", startEcho(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := c.Pipe(t.Context(), "exec sleep 100")
	if err != nil {
		t.Fatal(err)
	}
	run(t, c.Bulk())
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, conn := range []net.Conn{echo, pipe} {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "was closed") {
			t.Errorf("Read: %v", err)
		}
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("Write works")
		}
		_ = conn.Close()
	}
	expectError(t, c, dstack.Unavailable, dstack.HostStepConnect, "was closed")
	expectError(t, c.Bulk(), dstack.Unavailable, dstack.HostStepConnect, "was closed")
	s.set(faults{isSilent: true})
	c = s.client(t)
	result := make(chan error, 1)
	go func() { _, err := c.Run(t.Context(), "true", nil); result <- err }()
	eventually(t, "it logs in", func() bool { accepted, _ := s.counts(); return accepted == 3 })
	_ = c.Close()
	if err := <-result; err == nil {
		t.Error("a login goes on after Close")
	}
}

func publicKeyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
