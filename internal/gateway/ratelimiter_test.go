package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
	"dstack/internal/spec"
)

func withLimits(r route.Route, rules ...spec.RateLimit) route.Route {
	r.Rules.Limits = rules
	return r
}

func byIP(prefix string, rps float64, burst int) spec.RateLimit {
	return spec.RateLimit{Prefix: prefix, Key: spec.RateLimitKey{Type: "ip_address"}, RPS: rps, Burst: burst}
}

func byHeader(name string, rps float64, burst int) spec.RateLimit {
	return spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "header", Header: name}, RPS: rps, Burst: burst}
}

// callers send requests to a gateway in a synctest bubble whose replicas are
// unreachable: a request that passes the limits gets 502.
type callers struct {
	t *testing.T
	g *gateway.Gateway
}

func (c callers) sendFrom(from, url string, more ...string) (status int, after string) {
	c.t.Helper()
	w := newRecorder()
	req := w.request(url)
	req.RemoteAddr = from
	for i := 0; i < len(more); i += 2 {
		req.Header.Add(more[i], more[i+1])
	}
	c.g.ServeHTTP(w, req)
	return w.Code, w.Header().Get("Retry-After")
}

// expectStatuses sends one request for each status.
func (c callers) expectStatuses(name, from, url string, statuses []int, more ...string) {
	c.t.Helper()
	for i, want := range statuses {
		if got, _ := c.sendFrom(from, url, more...); got != want {
			c.t.Errorf("%s: request %d got %d, want %d", name, i, got, want)
		}
	}
}

func TestRateLimit_RateAndBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := withLimits(publicRoute("open"), byIP("/", 2, 3))
		ends.IsStopping = true // a request that passes the limits gets 503
		g, p := startWithoutNetwork(t, gateway.Options{}, ends)
		c := callers{t, g}
		const passes, not = 503, 429
		c.expectStatuses("a burst", "10.0.0.1:1", "http://open.localhost/", []int{passes, passes, passes, passes, not, not})
		c.expectStatuses("another port is the same", "10.0.0.1:2", "http://open.localhost/", []int{not})
		c.expectStatuses("another caller", "10.0.0.2:1", "http://open.localhost/", []int{passes, passes, passes, passes, not})
		c.expectStatuses("mapped is the same", "[::ffff:10.0.0.2]:1", "http://open.localhost/", []int{not})
		c.expectStatuses("X-Forwarded-For of an untrusted client", "10.0.0.2:1", "http://open.localhost/", []int{not}, "X-Forwarded-For", "10.9.9.9")
		c.expectStatuses("IPv6", "[2001:db8:1:2::1]:1", "http://open.localhost/", []int{passes, passes, passes, passes, not})
		c.expectStatuses("of one network", "[2001:db8:1:2:ffff::2]:1", "http://open.localhost/", []int{not})
		c.expectStatuses("of another", "[2001:db8:1:3::1]:1", "http://open.localhost/", []int{passes})
		if _, after := c.sendFrom("10.0.0.1:1", "http://open.localhost/"); after != "1" {
			t.Errorf("again in %q", after)
		}
		time.Sleep(500 * time.Millisecond)
		c.expectStatuses("half a second later", "10.0.0.1:1", "http://open.localhost/", []int{passes, not})

		same := ends
		same.Name, same.State = "open", "changed"
		p.setRoutes(same, publicRoute("more"))
		synctest.Wait()
		c.expectStatuses("by a new table", "10.0.0.1:1", "http://open.localhost/", []int{not})
		p.setRoutes(withLimits(ends, byIP("/", 2, 4)))
		synctest.Wait()
		c.expectStatuses("by a new limit", "10.0.0.1:1", "http://open.localhost/", []int{passes, passes, passes, passes, passes, not})
		p.setRoutes(withLimits(ends, byIP("/", 0.02, 0)))
		synctest.Wait()
		c.sendFrom("10.0.0.1:1", "http://open.localhost/")
		if status, after := c.sendFrom("10.0.0.1:1", "http://open.localhost/"); status != not || after != "50" {
			t.Errorf("one in fifty seconds: %d, again in %q", status, after)
		}
		if said := gatherMetrics(t, g); !strings.Contains(said, "dstack_requests_limited_total{project=main,run=open} ") || strings.Contains(said, "limited_total{project=main,run=open} 0") {
			t.Error(said)
		}
		time.Sleep(time.Second)
		if counts, _ := p.lastReport(); len(counts.Runs) != 0 {
			t.Errorf("what is refused is no load: %+v", counts)
		}
	})
}

func TestRateLimit_ByHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := withLimits(publicRoute("open"), byHeader("X-User", 1, 0))
		ends.IsStopping = true
		g, _ := startWithoutNetwork(t, gateway.Options{}, ends)
		c := callers{t, g}
		c.expectStatuses("a", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, "X-User", "a")
		c.expectStatuses("b", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, "x-user", "b")
		c.expectStatuses("a from elsewhere", "10.0.0.2:1", "http://open.localhost/", []int{429}, "X-User", "a")
		c.expectStatuses("no user", "10.0.0.1:1", "http://open.localhost/", []int{503, 429})
		c.expectStatuses("no user, another address", "10.0.0.2:1", "http://open.localhost/", []int{429})
	})
}

func TestRateLimit_LongestPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := withLimits(publicRoute("open"), byIP("/api/", 1, 1), byIP("/api/slow", 1, 0))
		ends.IsStopping = true
		for _, c := range []struct {
			path   string
			passes int
		}{
			{"/", 9}, {"/ap", 9}, {"/apis", 9}, {"/v1/api/", 9},
			{"/api/", 2}, {"/api", 2}, {"/api/a", 2}, {"//api//a", 2}, {"/x/../api/a", 2}, {"/%61pi/a", 2}, {"/proxy/services/main/open/api/a", 2},
			{"/api/slow", 1}, {"/api/slower", 1}, {"/api/./slow/x?y=z", 1},
		} {
			g, _ := startWithoutNetwork(t, gateway.Options{}, ends)
			host := "http://open.localhost"
			if strings.HasPrefix(c.path, "/proxy") {
				host = "http://localhost"
			}
			n := 0
			for n < 9 {
				if status, _ := (callers{t, g}).sendFrom("10.0.0.1:1", host+c.path); status == 429 {
					break
				}
				n++
			}
			if n != c.passes {
				t.Errorf("%s: %d passed, want %d", c.path, n, c.passes)
			}
		}
	})
}

// A request is counted after it is authorized, and once, however long it waits.
func TestRateLimit_OnceForEachRequest(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	open := withLimits(serviceRoute("open"), byIP("/", 0.02, 0))
	r := startGateway(t, gateway.Limits{}, open)
	for range 3 {
		if got := r.get("http://open.localhost/"); got.StatusCode != 401 {
			t.Errorf("without a token: %d", got.StatusCode)
		}
	}
	done := make(chan response, 1)
	go func() { done <- r.get("http://open.localhost/", withToken(member)...) }()
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	r.plane.setRoutes(open, publicRoute("more"))
	open.Ready = []route.Target{up}
	r.plane.setRoutes(open)
	if got := <-done; got.StatusCode != 200 {
		t.Errorf("a request that waited: %d %s", got.StatusCode, got.body)
	}
	if got := r.get("http://open.localhost/", withToken(member)...); got.StatusCode != 429 || !strings.Contains(got.body, `"kind":"too_many_requests","message":"too many requests: open takes 0.02 a second of one caller"`) {
		t.Errorf("the next: %d %s", got.StatusCode, got.body)
	}
}

func TestRateLimit_ErrorOfTheModelEndpoint(t *testing.T) {
	m := modelRoute("m", "org/m", startReplica(t, 0, serveHello))
	m.Prefix = "/api/v1"
	r := startGateway(t, gateway.Limits{}, withLimits(m, spec.RateLimit{Prefix: "/api/v1/", Key: spec.RateLimitKey{Type: "header", Header: "Authorization"}, RPS: 0.02}))
	if got := r.sendChat(`{"model":"org/m"}`); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	got := r.sendChat(`{"model":"org/m"}`)
	if got.StatusCode != 429 || got.Header.Get("Retry-After") != "50" || !strings.Contains(got.body, `"type":"requests","param":null,"code":"rate_limit_exceeded"`) {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	got = r.do(r.newRequest("POST", "http://gateway.localhost/v1/messages", strings.NewReader(`{"model":"org/m"}`), withToken(member)...))
	if got.StatusCode != 429 || !strings.Contains(got.body, `{"type":"error","error":{"type":"rate_limit_error","message":"too many requests`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"org/m"}`), withToken(admin)...)); got.StatusCode != 200 {
		t.Errorf("another caller: %d %s", got.StatusCode, got.body)
	}
	if got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/tokenize", strings.NewReader(`{"model":"org/m"}`), withToken(member)...)); got.StatusCode != http.StatusOK {
		t.Errorf("another path: %d %s", got.StatusCode, got.body)
	}
}

// Of runs that share a model, the limits of the run that gets the request apply,
// or of the run that it waits for.
func TestRateLimit_OfTheChosenRun(t *testing.T) {
	slow := spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "ip_address"}, RPS: 0.02}
	first, second := withLimits(modelRoute("first", "org/m"), slow), modelRoute("second", "org/m", startReplica(t, 0, serveHello))
	second.Since = 2
	r := startGateway(t, gateway.Limits{HoldTimeout: 20 * time.Millisecond}, first, second)
	for range 3 {
		if got := r.sendChat(`{"model":"org/m"}`); got.StatusCode != 200 {
			t.Errorf("the run without a limit: %d %s", got.StatusCode, got.body)
		}
	}
	second.Ready, second.NeverServes = nil, true
	r.plane.setRoutes(first, second)
	waitUntil(t, "it waits for the first", func() bool { return r.sendChat(`{"model":"org/m"}`).StatusCode == 503 })
	if got := r.sendChat(`{"model":"org/m"}`); got.StatusCode != 429 {
		t.Errorf("the run with a limit: %d %s", got.StatusCode, got.body)
	}
}

// The number of known callers is limited: those with a full bucket are forgotten
// first, then the one that is longest unused.
func TestRateLimit_ManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := withLimits(publicRoute("open"), byHeader("X-User", 0.02, 0))
		ends.IsStopping = true
		g, _ := startWithoutNetwork(t, gateway.Options{}, ends)
		c := callers{t, g}
		user := func(n int) []string { return []string{"X-User", fmt.Sprint(n)} }
		for i := range 10_000 {
			c.expectStatuses("new", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(i)...)
		}
		c.expectStatuses("still known", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(0)...)
		c.expectStatuses("one more", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(10_000)...)
		c.expectStatuses("the last to ask stays", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(0)...)
		c.expectStatuses("the first to ask is forgotten", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(1)...)
		time.Sleep(30 * time.Second)
		c.expectStatuses("one who has waited not long", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, user(20_000)...)
		time.Sleep(21 * time.Second) // all others are idle by now
		c.expectStatuses("one more", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(30_000)...)
		for i := range 9_000 {
			c.expectStatuses("after the idle left", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(40_000+i)...)
		}
		c.expectStatuses("who is not idle stays", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(20_000)...)
	})
}

// One bound applies to the callers of all limits of a run.
func TestRateLimit_ManyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := publicRoute("open")
		ends.IsStopping = true
		for i := range 16 {
			ends = withLimits(ends, append(ends.Rules.Limits, byIP(fmt.Sprintf("/%d/", i), 0.02, 0))...)
		}
		g, _ := startWithoutNetwork(t, gateway.Options{}, ends, publicRoute("other"))
		c := callers{t, g}
		for i := range 10_000 {
			c.expectStatuses("new", fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), fmt.Sprintf("http://open.localhost/%d/", i%16), []int{503})
		}
		c.expectStatuses("still known", "10.1.0.0:1", "http://open.localhost/0/", []int{429})
		c.expectStatuses("not of another limit", "10.1.0.0:1", "http://open.localhost/1/", []int{503})
		c.expectStatuses("the first to ask is forgotten", "10.1.0.1:1", "http://open.localhost/1/", []int{503})
	})
}
