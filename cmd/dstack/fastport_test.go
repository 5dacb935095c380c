package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/frontend"
	"dstack/internal/gateway"
	"dstack/internal/loop"
)

// fixedPlane is a control plane whose table never changes.
type fixedPlane struct{ table route.Table }

func (p fixedPlane) Table(ctx context.Context, since uint64) (route.Table, error) {
	if since == p.table.Version {
		<-ctx.Done()
		return p.table, ctx.Err()
	}
	return p.table, nil
}

func (p fixedPlane) Report(context.Context, dstack.LoadReport) (dstack.LoadAnswer, error) {
	return dstack.LoadAnswer{}, nil
}

// fastPortRig is a gateway with the public service web behind a fastPort.
type fastPortRig struct {
	*fastPort
	gateway  *gateway.Gateway
	server   *http.Server
	address  string
	requests inFlight
	isLast   atomic.Bool
	begun    chan bool
	finish   chan bool
}

func newFastPortRig(t *testing.T) *fastPortRig {
	r := &fastPortRig{begun: make(chan bool, 10), finish: make(chan bool)}
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			r.begun <- true
			<-r.finish
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(replica.Close)
	address := replica.Listener.Addr().String()
	r.gateway = gateway.New(gateway.Options{Log: slog.New(slog.DiscardHandler), Control: fixedPlane{route.Table{Version: 1, Routes: []route.Route{
		{Run: "web", Project: "main", Name: "web", Ready: []route.Target{{Replica: "web-0", Endpoint: dstack.Endpoint{Address: address}}}}}}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- loop.Run(ctx, r.gateway.Tasks()...) }()
	<-r.gateway.Ready()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.fastPort, err = openFastPort(l, r.gateway, gateway.DirectorOptions{IsLast: r.isLast.Load,
		Began: func() { r.requests.begin() }, Ended: r.requests.end})
	if err != nil {
		t.Fatal(err)
	}
	r.server = frontend.NewServer(r.gateway, frontend.ServerOptions{ConnContext: gateway.WithConn, Log: slog.New(slog.DiscardHandler)})
	go func() { done <- r.server.Serve(r.fastPort) }()
	t.Cleanup(func() {
		_ = r.server.Close()
		cancel()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}
		if err := r.running.Wait(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// connect opens a connection.
func (r *fastPortRig) connect(t *testing.T) *testConn {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &testConn{t: t, Conn: conn, in: bufio.NewReader(conn)}
}

type testConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (c *testConn) send(path, fields string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.Conn, "GET %s HTTP/1.1\r\nHost: web.localhost\r\n%s\r\n", path, fields); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads a response, and returns it without its body.
func (c *testConn) expect(status int) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status || status == 200 && string(body) != "hello" {
		c.t.Fatalf("%d %q %v, want %d", res.StatusCode, body, err, status)
	}
	return res
}

// expectEnd checks that the other side has closed the connection.
func (c *testConn) expectEnd() {
	c.t.Helper()
	if b, err := c.in.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		c.t.Fatalf("read %q %v", b, err)
	}
}

func TestFastPort_Drain(t *testing.T) {
	r := newFastPortRig(t)
	idle, busy, handed := r.connect(t), r.connect(t), r.connect(t)
	idle.send("/", "")
	idle.expect(200)
	handed.send("/slow", "Upgrade: something\r\nConnection: upgrade\r\n")
	busy.send("/slow", "")
	<-r.begun
	<-r.begun
	if n := r.requests.count.Load(); n != 1 { // the other one is counted by the http.Server's handler
		t.Errorf("%d requests are counted", n)
	}
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r.Drain(brief); brief.Err() == nil {
		t.Error("drained with a request in flight")
	}
	idle.expectEnd()
	if conn, err := net.Dial("tcp", r.address); err == nil {
		_ = conn.Close()
		t.Error("a new connection is accepted")
	}
	close(r.finish)
	busy.expect(200)
	r.Drain(t.Context())
	handed.expect(200)
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	busy.expectEnd()
	if left := r.requests.waitIdle(t.Context()); left != 0 {
		t.Errorf("%d requests are left", left)
	}
}

func TestFastPort_CloseCutsRequests(t *testing.T) {
	r := newFastPortRig(t)
	defer close(r.finish)
	busy := r.connect(t)
	busy.send("/slow", "")
	<-r.begun
	if err := r.server.Close(); err != nil {
		t.Error(err)
	}
	busy.expectEnd()
	if left := r.requests.waitIdle(t.Context()); left != 0 {
		t.Errorf("%d requests are left", left)
	}
}

// A replaced process answers each kept connection once more.
func TestFastPort_LastResponse(t *testing.T) {
	r := newFastPortRig(t)
	c := r.connect(t)
	c.send("/", "")
	if res := c.expect(200); res.Close {
		t.Error("the connection is closed")
	}
	r.isLast.Store(true)
	c.send("/", "")
	if res := c.expect(200); !res.Close {
		t.Error("the connection is kept")
	}
	c.expectEnd()
}

func TestReadFastPath(t *testing.T) {
	for value, want := range map[string]string{"": "true", "on": "true", "off": "false", "no": "neither on nor off"} {
		t.Setenv(fastPathVariable, value)
		isOn, err := readFastPath()
		if got := fmt.Sprint(isOn, err); !strings.Contains(got, want) {
			t.Errorf("%q: %s", value, got)
		}
	}
}
