package sshclient

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// Rule 6: a cut connection is noticed within the interval and the limit of the answer, idle and with a request under way. What
// is open ends with an error of its own, and never with io.EOF. The next use logs in again.
func TestRule6_CutConnection(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"idle", "with a request under way"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeServer(t)
			p := newProxy(t, s.address)
			login := s.login()
			login.Address = p.address
			c := newTestClient(t, Options{Login: login})
			c.SetBusy(true)
			conn, err := c.Dial(t.Context(), "tcp", startEcho(t, "tcp", "127.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			time.Sleep(3 * c.times.busyInterval) // the server answers
			if state := c.State(); !state.IsConnected || !state.SilentSince.IsZero() || time.Since(state.LastAnswer) > 10*time.Second {
				t.Errorf("before the cut: %+v", state)
			}
			p.isCut.Store(true)
			cut := time.Now()
			if name != "idle" {
				_, _ = io.WriteString(conn, "x")
			}
			eventually(t, "the state says since when it is silent", func() bool { return !c.State().SilentSince.IsZero() })
			_, err = conn.Read(make([]byte, 1))
			if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "has not answered for 500ms over SSH") {
				t.Errorf("Read: %v", err)
			}
			if took := time.Since(cut); took < c.times.answer*9/10 { // it may have been asked just before the cut
				t.Errorf("it took only %s", took)
			}
			state := c.State()
			if state.IsConnected || !strings.Contains(state.Err.Error(), "has not answered") || state.SilentSince.After(cut.Add(time.Second)) {
				t.Errorf("after the cut: %+v", state)
			}
			p.heal()
			run(t, c)
			if state := c.State(); !state.IsConnected || state.Err != nil || !state.SilentSince.IsZero() {
				t.Errorf("healed: %+v", state)
			}
		})
	}
}

// Rule 6: a host with replicas is asked more often, and so is its jump host.
func TestRule6_BusyInterval(t *testing.T) {
	t.Parallel()
	jump := newTestClient(t, Options{})
	c := newTestClient(t, Options{Jump: jump})
	other := newTestClient(t, Options{Jump: jump})
	check := func(what string, busy ...bool) {
		t.Helper()
		for i, client := range []*Client{c, other, jump} {
			want := client.times.idleInterval
			if busy[i] {
				want = client.times.busyInterval
			}
			if got := client.keepAliveInterval(); got != want {
				t.Errorf("%s: client %d has %s", what, i, got)
			}
		}
	}
	check("new", false, false, false)
	if c.Bulk().keepAliveInterval() != c.times.idleInterval {
		t.Error("bulk is busy")
	}
	c.SetBusy(true)
	c.SetBusy(true)
	other.SetBusy(true)
	check("both busy", true, true, true)
	if c.Bulk().keepAliveInterval() != c.times.busyInterval || other.Bulk().keepAliveInterval() != c.times.busyInterval {
		t.Error("bulk is not busy")
	}
	c.SetBusy(false)
	check("one busy", false, true, true)
	_ = other.Close()
	check("none busy", false, false, false)
	if d := defaultTimes(); d.busyInterval != 3*time.Second || d.idleInterval != 10*time.Second || d.answer != 5*time.Second {
		t.Errorf("the defaults are %+v", d)
	}
}

// A server that sends other data answers, although its answer to the keep-alive message waits behind that data.
func TestRule6_BulkDataCounts(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	p := newProxy(t, s.address)
	login := s.login()
	login.Address = p.address
	c := newTestClient(t, Options{Login: login})
	c.times.answer = 150 * time.Millisecond
	run(t, c)
	c.mu.Lock()
	l := c.links[0]
	c.mu.Unlock()
	p.isCut.Store(true) // no answer, but:
	end := time.Now().Add(600 * time.Millisecond)
	for time.Now().Before(end) {
		l.net.noteRead()
		if l.isLost() {
			t.Fatal("the connection was closed")
		}
		time.Sleep(5 * time.Millisecond)
	}
	eventually(t, "the connection is closed when nothing comes any more", l.isLost)
}

// Rule 7: sshd asks on an open channel whether the client is alive; it closes the connection if nobody answers there.
func TestOpenSSH_Rule7_AnswersTheServer(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "ClientAliveInterval 1", "ClientAliveCountMax 1")
	echo := startEcho(t, "tcp", "127.0.0.1:0")
	var conns []net.Conn
	for _, open := range []func(c *Client) (net.Conn, error){
		func(c *Client) (net.Conn, error) { return c.Dial(t.Context(), "tcp", echo) },
		func(c *Client) (net.Conn, error) { return c.Pipe(t.Context(), "cat; printf bye") },
	} {
		c := s.client()                    // sshd asks on one channel of a connection
		c.times.idleInterval = time.Minute // ours would count as an answer
		conn, err := open(c)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	time.Sleep(5 * time.Second) // sshd closes after 4
	for _, conn := range conns {
		checkEcho(t, conn)
	}
}

// Rule 19: a server that closes connections without channels does so once; then one channel is held open.
func TestRule19_HoldsAChannelOpen(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{unusedLimit: 200 * time.Millisecond})
	c := s.client(t)
	run(t, c)
	eventually(t, "the server closes the connection", func() bool { return !c.State().IsConnected })
	run(t, c)
	time.Sleep(time.Second)
	run(t, c)
	if _, opened := s.counts(); opened != 2 || c.State().Channels != 0 {
		t.Errorf("%d logins, %d channels", opened, c.State().Channels)
	}
}

// Rule 19: the end of a lost connection is no end of a stream.
func TestOpenSSH_Rule19_LossIsNoEnd(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	p := newProxy(t, s.address)
	login := s.login()
	login.Address = p.address
	c := newTestClient(t, Options{Login: login})
	conn, err := c.Dial(t.Context(), "tcp", startEcho(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := c.Pipe(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	started := filepath.Join(s.dir, "started")
	go func() { _, err := c.Run(t.Context(), "touch "+started+"; sleep 100", nil); result <- err }()
	eventually(t, "the command runs", func() bool { _, err := os.Stat(started); return err == nil })
	p.heal() // closes the connections
	for _, conn := range []net.Conn{conn, pipe} {
		_, err := conn.Read(make([]byte, 1))
		if dstack.KindOf(err) != dstack.Unavailable || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "was lost") {
			t.Errorf("Read: %v", err)
		}
		if _, err := conn.Write([]byte("x")); dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("Write: %v", err)
		}
	}
	if err := <-result; dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "was lost") {
		t.Errorf("Run: %v", err)
	}
	run(t, c)
}

// Waiting callers give up with their contexts while the connection is healed.
func TestHealing_CallersGiveUp(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	p := newProxy(t, s.address)
	login := s.login()
	login.Address = p.address
	c := newTestClient(t, Options{Login: login})
	run(t, c)
	p.isCut.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := c.Dial(ctx, "tcp", "127.0.0.1:1")
	if !errors.Is(err, context.DeadlineExceeded) || dstack.KindOf(err) != dstack.Unavailable || time.Since(begin) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	eventually(t, "the cut is noticed", func() bool { return !c.State().IsConnected })
	p.heal()
	run(t, c)
}
