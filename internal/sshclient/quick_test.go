package sshclient

import (
	"testing"
	"time"

	"dstack/internal/dstack"
)

// expectQuickly calls DialNow, which has to fail with Unavailable within a time.
func expectQuickly(t *testing.T, c *Client, what string, least, most time.Duration) {
	t.Helper()
	begin := time.Now()
	conn, err := c.DialNow(t.Context(), "127.0.0.1:1")
	if err == nil {
		_ = conn.Close()
	}
	if took := time.Since(begin); dstack.KindOf(err) != dstack.Unavailable || StepOf(err) != dstack.HostStepConnect || took < least || took > most {
		t.Errorf("%s: %v after %s, want %s to %s", what, err, took, least, most)
	}
}

// A caller that can go elsewhere does not wait for a machine that died: neither for its answer, nor for the next login.
func TestDialNow_DeadMachine(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	p := newProxy(t, s.address)
	login := s.login()
	login.Address = p.address
	c := newTestClient(t, Options{Login: login})
	c.times.idleInterval, c.times.answer, c.times.quick, c.times.overdue = time.Minute, 3*time.Second, 600*time.Millisecond, 200*time.Millisecond
	run(t, c)
	echo := startEcho(t, "tcp", "127.0.0.1:0")
	conn, err := c.DialNow(t.Context(), echo)
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
	p.isCut.Store(true)
	cut := time.Now()
	expectQuickly(t, c, "the first after the cut", 300*time.Millisecond, 2500*time.Millisecond)
	expectQuickly(t, c, "the next one", 0, 500*time.Millisecond)
	if s := c.State(); !s.IsConnected || s.SilentSince.IsZero() {
		t.Errorf("state %+v after %s", s, time.Since(cut))
	}
	eventually(t, "the connection is lost", func() bool { return !c.State().IsConnected })
	for range 3 { // the login hangs
		expectQuickly(t, c, "without a connection", 0, 500*time.Millisecond)
	}
	p.heal()
	eventually(t, "a login went on", func() bool {
		conn, err := c.DialNow(t.Context(), echo)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// A connection that a live server has closed is replaced at once, so its callers wait for the login; not for a long one.
func TestDialNow_Login(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	c := s.client(t)
	c.times.quick = 1500 * time.Millisecond
	echo := startEcho(t, "tcp", "127.0.0.1:0")
	s.set(faults{loginDelay: 50 * time.Millisecond})
	for range 3 {
		conn, err := c.DialNow(t.Context(), echo)
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, conn)
		s.closeAll()
		eventually(t, "the connection is lost", func() bool { return !c.State().IsConnected })
	}
	s.set(faults{isSilent: true})
	expectQuickly(t, c, "a long login", 1200*time.Millisecond, 4*time.Second)
	expectQuickly(t, c, "the same login", 0, 700*time.Millisecond)
}

// A replica that does not answer says nothing about the machine.
func TestDialNow_SlowReplica(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{openDelay: 3 * time.Second})
	c := s.client(t)
	c.times.idleInterval, c.times.quick, c.times.overdue = time.Minute, 1500*time.Millisecond, 300*time.Millisecond
	run(t, c)
	conn, err := c.DialNow(t.Context(), startEcho(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
	if d := defaultTimes(); d.quick != 3*time.Second {
		t.Errorf("the default is %s", d.quick)
	}
}
