package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/loop"
	"dstack/internal/relay"
)

// fakeControlPlane is a control plane with a table that tests set, and faults.
type fakeControlPlane struct {
	mu         sync.Mutex
	changes    loop.Broadcast
	table      route.Table
	tableErr   error
	tableCalls int
	applied    uint64 // version of the table that the gateway serves by

	reports    []dstack.LoadReport // all so far
	answer     dstack.LoadAnswer   // returned by Report
	reportFail error               // returned by Report
	reportHang bool                // Report blocks until its context ends
}

// Report records a report.
func (p *fakeControlPlane) Report(ctx context.Context, c dstack.LoadReport) (dstack.LoadAnswer, error) {
	p.mu.Lock()
	p.reports = append(p.reports, c)
	answer, err, hang := p.answer, p.reportFail, p.reportHang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return dstack.LoadAnswer{}, ctx.Err()
	}
	return answer, err
}

// lastReport returns the latest report, and how many there were.
func (p *fakeControlPlane) lastReport() (dstack.LoadReport, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.reports) == 0 {
		return dstack.LoadReport{}, 0
	}
	return p.reports[len(p.reports)-1], len(p.reports)
}

func (p *fakeControlPlane) Table(ctx context.Context, since uint64) (route.Table, error) {
	for {
		next := p.changes.Changed()
		p.mu.Lock()
		table, err := p.table, p.tableErr
		p.tableCalls++
		p.applied = since
		p.mu.Unlock()
		if err != nil {
			return route.Table{}, err
		}
		if table.Version > since {
			return table, nil
		}
		select {
		case <-ctx.Done():
			return route.Table{}, ctx.Err()
		case <-next:
		}
	}
}

// setRoutes publishes routes under the next version.
func (p *fakeControlPlane) setRoutes(routes ...route.Route) { p.setRoutesAnd(nil, routes...) }

// setRoutesAnd publishes routes with a change of the table.
func (p *fakeControlPlane) setRoutesAnd(change func(*fakeControlPlane), routes ...route.Route) {
	p.mu.Lock()
	p.table = route.Table{Version: p.table.Version + 1, Routes: routes, Tokens: map[string][]string{
		hashToken(admin):  {"*"},
		hashToken(member): {"main"},
		hashToken(other):  {"team"},
	}, Projects: []string{"main", "team"}}
	for _, r := range routes {
		p.table.Projects = append(p.table.Projects, r.Project)
	}
	if change != nil {
		change(p)
	}
	p.mu.Unlock()
	p.changes.Notify()
}

func (p *fakeControlPlane) failWith(err error) {
	p.mu.Lock()
	p.tableErr = err
	p.mu.Unlock()
	p.changes.Notify()
}

// The tokens of the fake control plane.
const (
	admin  = "token-of-an-admin"
	member = "token-of-a-member-of-main"
	other  = "token-of-a-member-of-team"
)

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// testGateway is a gateway with a listener, and its control plane.
type testGateway struct {
	t       testing.TB
	plane   *fakeControlPlane
	gateway *gateway.Gateway
	server  *httptest.Server
	client  *http.Client
	log     *logBuffer
	fast    atomic.Int64 // requests that took the fast path
	isSlow  atomic.Bool  // all requests are handed over
}

type logBuffer struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// startGateway starts a gateway that has the routes, if any.
func startGateway(t testing.TB, limits gateway.Limits, routes ...route.Route) *testGateway {
	t.Helper()
	return startGatewayWith(t, gateway.Options{Limits: limits}, routes...)
}

func startGatewayWith(t testing.TB, o gateway.Options, routes ...route.Route) *testGateway {
	t.Helper()
	r := &testGateway{t: t, plane: &fakeControlPlane{}, log: &logBuffer{}}
	level := slog.LevelDebug
	if _, bench := t.(*testing.B); bench {
		level = slog.LevelInfo
	}
	o.Control = r.plane
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: level}))
	}
	r.gateway = gateway.New(o)
	if routes != nil {
		r.plane.setRoutes(routes...)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	fast, fastTasks := r.newFastPath()
	go func() { done <- loop.Run(ctx, append(r.gateway.Tasks(), fastTasks...)...) }()
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.gateway.Serves(req) {
			http.Error(w, "the api", http.StatusTeapot)
			return
		}
		r.gateway.ServeHTTP(w, req)
	}))
	r.server.Config.ConnContext = gateway.WithConn
	r.server.Listener.Close()
	r.server.Listener = fast
	r.server.Start()
	r.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, route := range routes {
		waitUntil(t, "the table", func() bool { _, ok := r.gateway.Load()[route.Run]; return ok })
	}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.server.Close()
	})
	return r
}

// newFastPath returns the listener of the gateway, whose plain requests take the fast path.
func (r *testGateway) newFastPath() (*relay.Listener, []loop.Task) {
	r.t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	fast, err := r.gateway.NewRelay(gateway.DirectorOptions{
		Accepts: func(string, *relay.Exchange) bool { return !isSlowPath && !r.isSlow.Load() },
		Began:   func() { r.fast.Add(1) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	listener := fast.Listener(inner)
	accept := loop.Task{Name: "accept connections", Run: func(ctx context.Context) error {
		if err := listener.Run(ctx); !errors.Is(err, net.ErrClosed) {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	return listener, append(fast.Tasks(), accept)
}

// startReplica starts a server as a replica, and returns its target.
func startReplica(t testing.TB, num int, serve http.HandlerFunc) route.Target {
	t.Helper()
	s := httptest.NewUnstartedServer(serve)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return targetAt(s.Listener.Addr().String(), num)
}

func targetAt(address string, num int) route.Target {
	return route.Target{Replica: dstack.ReplicaID(address), Num: num, Endpoint: dstack.Endpoint{Address: address}}
}

// closedPort returns an address that refuses connections.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func serviceRoute(name string, ready ...route.Target) route.Route {
	return route.Route{Run: dstack.RunID("run-" + name), Project: "main", Name: name, Auth: true, Since: 1, Ready: ready}
}

func publicRoute(name string, ready ...route.Target) route.Route {
	r := serviceRoute(name, ready...)
	r.Auth = false
	return r
}

func modelRoute(name, model string, ready ...route.Target) route.Route {
	r := serviceRoute(name, ready...)
	r.Model, r.Prefix = model, "/v1"
	return r
}

// newRequest returns a request for a URL, addressed to the gateway. More are pairs
// of header and value.
func (r *testGateway) newRequest(method, url string, body io.Reader, more ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.URL.Host = r.server.Listener.Addr().String()
	for i := 0; i < len(more); i += 2 {
		req.Header.Add(more[i], more[i+1])
	}
	return req
}

// dialGateway opens a connection to the gateway, for what Go's client does not
// send.
func (r *testGateway) dialGateway() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// response is a response with its whole body.
type response struct {
	*http.Response
	body string
}

// metrics returns those of a run in the latest report.
func (r *testGateway) metrics(run dstack.RunID) dstack.RunMetrics {
	report, _ := r.plane.lastReport()
	return report.Runs[run].Metrics
}

func (r *testGateway) do(req *http.Request) response {
	r.t.Helper()
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{res, string(body)}
}

func (r *testGateway) get(url string, more ...string) response {
	r.t.Helper()
	return r.do(r.newRequest("GET", url, nil, more...))
}

func withToken(token string) []string { return []string{"Authorization", "Bearer " + token} }

// waitUntil waits for a condition, and fails the test if it takes too long.
func waitUntil(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("timed out: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func serveHello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from "+r.URL.Path) }

var errServerAway = errors.New("the server is away")

// recorder is a writer without a server.
type recorder struct{ *httptest.ResponseRecorder }

func newRecorder() recorder { return recorder{httptest.NewRecorder()} }

func (recorder) request(url string) *http.Request { return httptest.NewRequest("GET", url, nil) }
