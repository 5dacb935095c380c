package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/gateway"
	"dstack/internal/spec"
)

// getLater sends a request that waits, and returns its response later.
func (r *testGateway) getLater(url string, more ...string) <-chan response {
	got := make(chan response, 1)
	go func() { got <- r.get(url, more...) }()
	return got
}

// A request that waited on the fast path goes on there with a replica that only the slow path reaches. All counts stay as they are.
func TestFast_HandsOverWhatWaited(t *testing.T) {
	var d dial.Dialer
	up := onHost(&d, "gpu1", startReplica(t, 0, serveHello))
	web := serviceRoute("web")
	web.Rules.Limits = []spec.RateLimit{{Prefix: "/", RPS: 0.001}}
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, web).withKeys(newKey("a", func(k *route.Key) { k.RPS = 1 }))
	got := r.getLater("http://web.localhost/x", append(bearerKey("a"), "X-Request-Id", "given")...)
	waitUntil(t, "it waits", func() bool { return r.gateway.Load()["run-web"].Held == 1 })
	if r.fast.Load() != 1 {
		t.Error("it waits on the slow path")
	}
	web.Ready = []route.Target{up}
	r.plane.setRoutesAnd(func(p *fakeControlPlane) { p.table.Keys = []route.Key{newKey("a", func(k *route.Key) { k.RPS = 1 })} }, web)
	response := <-got
	if response.StatusCode != 200 || response.body != "hello from /x" || response.Header.Get("X-Request-Id") != "given" {
		t.Errorf("%d %s", response.StatusCode, response.body)
	}
	waitUntil(t, "it was counted once", func() bool {
		report, _ := r.plane.lastReport()
		run := report.Runs["run-web"]
		return run.Requests == 1 && run.Metrics.Requests == 1 && report.Keys["id-a"].Requests == 1 && report.Keys["id-a"].Refused == 0
	})
	waitUntil(t, "nothing is in flight", func() bool {
		load := r.gateway.Load()["run-web"]
		return load.Held == 0 && load.InFlight == 0 && load.Limited == 0
	})
}

// A new table authorizes the requests that wait again.
func TestFast_AuthorizesAgainWhileItWaits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fakeControlPlane)
		status int
	}{
		"its token is revoked":        {func(p *fakeControlPlane) { delete(p.table.Tokens, hashToken(member)) }, 401},
		"its token opens the project": {func(*fakeControlPlane) {}, 200},
		"the run is gone":             {func(p *fakeControlPlane) { p.table.Routes = nil }, 404},
		"its token opens another project": {func(p *fakeControlPlane) {
			p.table.Tokens[hashToken(member)] = []string{"team"}
		}, 403},
		"the run is being stopped": {func(p *fakeControlPlane) { p.table.Routes[0].Ready, p.table.Routes[0].IsStopping = nil, true }, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startGateway(t, gateway.Limits{}, serviceRoute("web"))
			got := r.getLater("http://web.localhost/", withToken(member)...)
			waitUntil(t, "it waits", func() bool { return r.gateway.Load()["run-web"].Held == 1 })
			table := serviceRoute("web", startReplica(t, 0, serveHello))
			r.plane.setRoutesAnd(c.change, table)
			if response := <-got; response.StatusCode != c.status {
				t.Errorf("%d %s", response.StatusCode, response.body)
			}
			waitUntil(t, "nothing is in flight", func() bool {
				load := r.gateway.Load()["run-web"]
				return load.Held == 0 && load.InFlight == 0
			})
		})
	}
}

// A public service gets no token that became one of the platform while the request waited.
func TestFast_HidesTokenThatIsNewer(t *testing.T) {
	var seen string
	open := publicRoute("open")
	r := startGateway(t, gateway.Limits{}, open)
	got := r.getLater("http://open.localhost/", "Authorization", "Bearer dstkey_new")
	waitUntil(t, "it waits", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	open.Ready = []route.Target{startReplica(t, 0, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Get("Authorization") })}
	r.plane.setRoutesAnd(func(p *fakeControlPlane) { p.table.Keys = []route.Key{newKey("new")} }, open)
	if response := <-got; response.StatusCode != 200 || seen != "" || r.fast.Load() != 1 {
		t.Errorf("%d, the replica got %q", response.StatusCode, seen)
	}
}

// A client that leaves while its request waits is noticed at once, as long as the system has taken what it sent of its body.
func TestFast_ClientLeavesWhileItWaits(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, publicRoute("open"))
	conn := r.dialGateway()
	if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 900000\r\n\r\n" + strings.Repeat("x", 50000))); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it waits", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	left := time.Now()
	conn.Close()
	waitUntil(t, "it does not", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
	if took := time.Since(left); took > peerCheck/2 {
		t.Errorf("noticed after %s", took)
	}
}

// peerCheck is how often the slow path looks.
const peerCheck = time.Second
