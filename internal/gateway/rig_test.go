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
	"testing"
	"time"

	"go.uber.org/goleak"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a control plane with a table that tests set, and knobs.
type plane struct {
	mu    sync.Mutex
	bell  loop.Broadcast
	table route.Table
	fail  error
	asked int

	counts     []dstack.LoadReport // what was reported
	reportFail error               // what reports end with
	reportHang bool                // they end with their context
}

// Report notes what it is told.
func (p *plane) Report(ctx context.Context, c dstack.LoadReport) error {
	p.mu.Lock()
	p.counts = append(p.counts, c)
	err, hang := p.reportFail, p.reportHang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// reported is the last that was, and how many there were.
func (p *plane) reported() (dstack.LoadReport, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.counts) == 0 {
		return dstack.LoadReport{}, 0
	}
	return p.counts[len(p.counts)-1], len(p.counts)
}

func (p *plane) Table(ctx context.Context, since uint64) (route.Table, error) {
	for {
		next := p.bell.Changed()
		p.mu.Lock()
		table, err := p.table, p.fail
		p.asked++
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

// set publishes routes under the next version.
func (p *plane) set(routes ...route.Route) {
	p.mu.Lock()
	p.table = route.Table{Version: p.table.Version + 1, Routes: routes, Tokens: map[string][]string{
		hash(admin):  {"*"},
		hash(member): {"main"},
		hash(other):  {"team"},
	}}
	p.mu.Unlock()
	p.bell.Notify()
}

func (p *plane) failWith(err error) {
	p.mu.Lock()
	p.fail = err
	p.mu.Unlock()
	p.bell.Notify()
}

// The tokens there are.
const (
	admin  = "token-of-an-admin"
	member = "token-of-a-member-of-main"
	other  = "token-of-a-member-of-team"
)

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// rig is a gateway that serves, and its control plane.
type rig struct {
	t       testing.TB
	plane   *plane
	gateway *gateway.Gateway
	server  *httptest.Server
	client  *http.Client
	log     *lines
}

type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// start starts a gateway that has the routes, if any.
func start(t testing.TB, limits gateway.Limits, routes ...route.Route) *rig {
	t.Helper()
	return startWith(t, gateway.Options{Limits: limits}, routes...)
}

func startWith(t testing.TB, o gateway.Options, routes ...route.Route) *rig {
	t.Helper()
	r := &rig{t: t, plane: &plane{}, log: &lines{}}
	level := slog.LevelDebug
	if _, bench := t.(*testing.B); bench {
		level = slog.LevelInfo
	}
	o.Control, o.Log = r.plane, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: level}))
	r.gateway = gateway.New(o)
	if routes != nil {
		r.plane.set(routes...)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, r.gateway.Tasks()...) }()
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.gateway.Serves(req) {
			http.Error(w, "the api", http.StatusTeapot)
			return
		}
		r.gateway.ServeHTTP(w, req)
	}))
	r.server.Config.ConnContext = gateway.WithConn
	r.server.Start()
	r.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, route := range routes {
		until(t, "the table", func() bool { _, ok := r.gateway.Load()[route.Run]; return ok })
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

// replica starts a server that plays a replica, and returns where it is.
func replica(t testing.TB, num int, serve http.HandlerFunc) route.Target {
	t.Helper()
	s := httptest.NewUnstartedServer(serve)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return at(s.Listener.Addr().String(), num)
}

func at(address string, num int) route.Target {
	return route.Target{Replica: dstack.ReplicaID(address), Num: num, Endpoint: dstack.Endpoint{Address: address}}
}

// closedPort is an address that refuses connections.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func service(name string, ready ...route.Target) route.Route {
	return route.Route{Run: dstack.RunID("run-" + name), Project: "main", Name: name, Auth: true, Since: 1, Ready: ready}
}

func public(name string, ready ...route.Target) route.Route {
	r := service(name, ready...)
	r.Auth = false
	return r
}

func model(name, model string, ready ...route.Target) route.Route {
	r := service(name, ready...)
	r.Model, r.Prefix = model, "/v1"
	return r
}

// ask is a request to url's path at the host of url, sent to the gateway. More
// are pairs of header and value.
func (r *rig) ask(method, url string, body io.Reader, more ...string) *http.Request {
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

// dial is a connection to the gateway, for what Go's client would not send.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// reply is an answer, read whole.
type reply struct {
	*http.Response
	body string
}

// metrics are those of a run in the latest report.
func (r *rig) metrics(run dstack.RunID) dstack.RunMetrics {
	report, _ := r.plane.reported()
	return report.Runs[run].Metrics
}

func (r *rig) do(req *http.Request) reply {
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
	return reply{res, string(body)}
}

func (r *rig) get(url string, more ...string) reply {
	r.t.Helper()
	return r.do(r.ask("GET", url, nil, more...))
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// until waits for something that is about to come.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("never came: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func hello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from "+r.URL.Path) }

var errAway = errors.New("the server is away")

// recorder is a writer without a server.
type recorder struct{ *httptest.ResponseRecorder }

func newRecorder() recorder { return recorder{httptest.NewRecorder()} }

func (recorder) request(url string) *http.Request { return httptest.NewRequest("GET", url, nil) }
