package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/sshserver"
)

// dialLogs opens the WebSocket of a login's logs, as a client does at the forwarded port.
func (s *sshTest) dialLogs(login sshserver.Login, host, path string, header http.Header) (*websocket.Conn, int, error) {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.jobs.Dial(ctx, login, AttachedLogsPort)
		}}}
	conn, response, err := websocket.Dial(s.t.Context(), "ws://localhost:10999"+path,
		&websocket.DialOptions{HTTPClient: client, HTTPHeader: header, Host: host})
	status := 0
	if response != nil {
		status = response.StatusCode
	}
	if conn != nil {
		s.t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, status, err
}

// expectMessages reads binary messages.
func (s *sshTest) expectMessages(conn *websocket.Conn, want ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	for _, w := range want {
		kind, text, err := conn.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || string(text) != w {
			s.t.Fatalf("got %q of type %v, %v; want %q", text, kind, err, w)
		}
	}
}

// expectNormalEnd waits for the end of the logs.
func (s *sshTest) expectNormalEnd(conn *websocket.Conn) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if _, text, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		s.t.Errorf("the logs ended with %q, %v", text, err)
	}
}

// TestAttachedLogs_FromTheFirstLine: a client gets all stored lines, then new ones, and a normal end.
func TestAttachedLogs_FromTheFirstLine(t *testing.T) {
	s := newSSHTest(t)
	key := s.logKey(s.run, s.findReplica(s.run.ID))
	at := time.Now().UTC().Truncate(time.Microsecond)
	s.writeLogs(key, at, "one")
	s.writeLogs(key, at.Add(1), "")
	s.writeLogs(key, at.Add(2), "\x1b[1mtwo\xff")
	conn, _, err := s.dialLogs(s.login, "", "/logs_ws", http.Header{"Origin": {"http://localhost:10999"}})
	if err != nil {
		t.Fatal(err)
	}
	s.expectMessages(conn, "one\n", "\n", "\x1b[1mtwo\xff\n")
	s.writeLogs(key, at.Add(3), "three")
	s.expectMessages(conn, "three\n")
	again, _, err := s.dialLogs(s.login, "127.0.0.1:4000", "/logs_ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.expectMessages(again, "one\n", "\n", "\x1b[1mtwo\xff\n", "three\n")
	s.logs.Finish(key)
	s.expectNormalEnd(conn)
	s.expectNormalEnd(again)
}

// TestAttachedLogs_OfOneJob: a client gets the lines of the job that it logged in for.
func TestAttachedLogs_OfOneJob(t *testing.T) {
	s := newSSHTest(t)
	other, theirs := s.startWithKey(s.admin, "other", newKeyLine(t))
	s.writeLogs(s.logKey(s.run, s.findReplica(s.run.ID)), time.Now(), "mine")
	s.writeLogs(s.logKey(other, s.findReplica(other.ID)), time.Now(), "theirs")
	for want, login := range map[string]sshserver.Login{"mine\n": s.login, "theirs\n": theirs} {
		conn, _, err := s.dialLogs(login, "", "/logs_ws?job="+s.login.User, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.expectMessages(conn, want)
	}
}

// TestAttachedLogs_EndWithTheAttempt: the logs end although nobody has marked them as complete.
func TestAttachedLogs_EndWithTheAttempt(t *testing.T) {
	s := newSSHTest(t)
	s.jobs.logs.trailingTime = 100 * time.Millisecond
	s.writeLogs(s.logKey(s.run, s.findReplica(s.run.ID)), time.Now(), "last words")
	conn, _, err := s.dialLogs(s.login, "", "/logs_ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.expectMessages(conn, "last words\n")
	s.stepReplica(s.findReplica(s.run.ID).ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}
	})
	s.expectNormalEnd(conn)
}

// TestAttachedLogs_NotForPages: the forwarded port is open to all pages in the client's browser, and none can read it.
func TestAttachedLogs_NotForPages(t *testing.T) {
	s := newSSHTest(t)
	for _, c := range []struct{ name, host, path, origin string }{
		{"another origin", "localhost:10999", "/logs_ws", "https://evil.example"},
		{"another port of localhost", "localhost:10999", "/logs_ws", "http://localhost:3000"},
		{"a name that leads here", "evil.example:10999", "/logs_ws", "http://evil.example:10999"},
		{"a name that begins with localhost", "localhost.evil.example:10999", "/logs_ws", "http://localhost.evil.example:10999"},
		{"another path", "localhost:10999", "/api/logs_ws", ""},
		{"the API of a runner", "localhost:10999", "/api/healthcheck", ""},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		if _, status, err := s.dialLogs(s.login, c.host, c.path, header); err == nil || status != 403 && status != 404 {
			t.Errorf("%s: status %d, %v", c.name, status, err)
		}
	}
	conn, err := s.jobs.Dial(t.Context(), s.login, AttachedLogsPort)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // the server answers before it has read everything
		long := strings.Repeat("X-Long: "+strings.Repeat("x", 1000)+"\r\n", 40)
		_, _ = fmt.Fprintf(conn, "GET /logs_ws HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", long)
	}()
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 431") {
		t.Errorf("a long header got %.60q", answer)
	}
}

// TestAttachedLogs_StopWithTheServer: streams end when the server stops, and no new ones begin.
func TestAttachedLogs_StopWithTheServer(t *testing.T) {
	s := newSSHTest(t)
	jobs := NewSSHJobs(s.server, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- jobs.LogsTask().Run(ctx) }()
	s.jobs = jobs
	conn, _, err := s.dialLogs(s.login, "", "/logs_ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the task returned %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the task does not end")
	}
	if _, _, err := conn.Read(t.Context()); err == nil || websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		t.Errorf("the logs of a stopped server ended with %v, as if they were complete", err)
	}
	if _, err := jobs.Dial(t.Context(), s.login, AttachedLogsPort); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a stopped server answers %v", err)
	}
}
