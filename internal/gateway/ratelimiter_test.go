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

func limited(r route.Route, rules ...spec.RateLimit) route.Route {
	r.Rules.Limits = rules
	return r
}

func byIP(prefix string, rps float64, burst int) spec.RateLimit {
	return spec.RateLimit{Prefix: prefix, Key: spec.RateLimitKey{Type: "ip_address"}, RPS: rps, Burst: burst}
}

func byHeader(name string, rps float64, burst int) spec.RateLimit {
	return spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "header", Header: name}, RPS: rps, Burst: burst}
}

// callers ask a gateway whose time stands still, and whose replicas nobody
// reaches: what passes is answered 502.
type callers struct {
	t *testing.T
	g *gateway.Gateway
}

func (c callers) ask(from, url string, more ...string) (status int, after string) {
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

// want asks as often as there are statuses.
func (c callers) want(name, from, url string, statuses []int, more ...string) {
	c.t.Helper()
	for i, want := range statuses {
		if got, _ := c.ask(from, url, more...); got != want {
			c.t.Errorf("%s: request %d got %d, want %d", name, i, got, want)
		}
	}
}

func TestLimit_RateAndBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := limited(public("open"), byIP("/", 2, 3))
		ends.IsStopping = true // what passes is answered 503
		g, p := still(t, gateway.Options{}, ends)
		c := callers{t, g}
		const passes, not = 503, 429
		c.want("a burst", "10.0.0.1:1", "http://open.localhost/", []int{passes, passes, passes, passes, not, not})
		c.want("another port is the same", "10.0.0.1:2", "http://open.localhost/", []int{not})
		c.want("another caller", "10.0.0.2:1", "http://open.localhost/", []int{passes, passes, passes, passes, not})
		c.want("mapped is the same", "[::ffff:10.0.0.2]:1", "http://open.localhost/", []int{not})
		c.want("forwarded says nothing", "10.0.0.2:1", "http://open.localhost/", []int{not}, "X-Forwarded-For", "10.9.9.9")
		c.want("IPv6", "[2001:db8:1:2::1]:1", "http://open.localhost/", []int{passes, passes, passes, passes, not})
		c.want("of one network", "[2001:db8:1:2:ffff::2]:1", "http://open.localhost/", []int{not})
		c.want("of another", "[2001:db8:1:3::1]:1", "http://open.localhost/", []int{passes})
		if _, after := c.ask("10.0.0.1:1", "http://open.localhost/"); after != "1" {
			t.Errorf("again in %q", after)
		}
		time.Sleep(500 * time.Millisecond)
		c.want("half a second later", "10.0.0.1:1", "http://open.localhost/", []int{passes, not})

		same := ends
		same.Name, same.State = "open", "news"
		p.set(same, public("more"))
		synctest.Wait()
		c.want("by a new table", "10.0.0.1:1", "http://open.localhost/", []int{not})
		p.set(limited(ends, byIP("/", 2, 4)))
		synctest.Wait()
		c.want("by a new limit", "10.0.0.1:1", "http://open.localhost/", []int{passes, passes, passes, passes, passes, not})
		p.set(limited(ends, byIP("/", 0.02, 0)))
		synctest.Wait()
		c.ask("10.0.0.1:1", "http://open.localhost/")
		if status, after := c.ask("10.0.0.1:1", "http://open.localhost/"); status != not || after != "50" {
			t.Errorf("one in fifty seconds: %d, again in %q", status, after)
		}
		if said := gathered(t, g); !strings.Contains(said, "dstack_requests_limited_total{project=main,run=open} ") || strings.Contains(said, "limited_total{project=main,run=open} 0") {
			t.Error(said)
		}
		time.Sleep(time.Second)
		if counts, _ := p.reported(); len(counts.Runs) != 0 {
			t.Errorf("what is refused is no load: %+v", counts)
		}
	})
}

func TestLimit_ByHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := limited(public("open"), byHeader("X-User", 1, 0))
		ends.IsStopping = true
		g, _ := still(t, gateway.Options{}, ends)
		c := callers{t, g}
		c.want("a", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, "X-User", "a")
		c.want("b", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, "x-user", "b")
		c.want("a from elsewhere", "10.0.0.2:1", "http://open.localhost/", []int{429}, "X-User", "a")
		c.want("nobody", "10.0.0.1:1", "http://open.localhost/", []int{503, 429})
		c.want("nobody from elsewhere", "10.0.0.2:1", "http://open.localhost/", []int{429})
	})
}

func TestLimit_LongestPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := limited(public("open"), byIP("/api/", 1, 1), byIP("/api/slow", 1, 0))
		ends.IsStopping = true
		for _, c := range []struct {
			path   string
			passes int
		}{
			{"/", 9}, {"/ap", 9}, {"/apis", 9}, {"/v1/api/", 9},
			{"/api/", 2}, {"/api", 2}, {"/api/a", 2}, {"//api//a", 2}, {"/x/../api/a", 2}, {"/%61pi/a", 2}, {"/proxy/services/main/open/api/a", 2},
			{"/api/slow", 1}, {"/api/slower", 1}, {"/api/./slow/x?y=z", 1},
		} {
			g, _ := still(t, gateway.Options{}, ends)
			host := "http://open.localhost"
			if strings.HasPrefix(c.path, "/proxy") {
				host = "http://localhost"
			}
			n := 0
			for n < 9 {
				if status, _ := (callers{t, g}).ask("10.0.0.1:1", host+c.path); status == 429 {
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

// The rate is looked at after the caller was let in, and once for each
// request, however long it waits.
func TestLimit_OnceForEachRequest(t *testing.T) {
	up := replica(t, 0, hello)
	open := limited(service("open"), byIP("/", 0.02, 0))
	r := start(t, gateway.Limits{}, open)
	for range 3 {
		if got := r.get("http://open.localhost/"); got.StatusCode != 401 {
			t.Errorf("without a token: %d", got.StatusCode)
		}
	}
	done := make(chan reply, 1)
	go func() { done <- r.get("http://open.localhost/", bearer(member)...) }()
	until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	r.plane.set(open, public("more"))
	open.Ready = []route.Target{up}
	r.plane.set(open)
	if got := <-done; got.StatusCode != 200 {
		t.Errorf("one that waited: %d %s", got.StatusCode, got.body)
	}
	if got := r.get("http://open.localhost/", bearer(member)...); got.StatusCode != 429 || !strings.Contains(got.body, `"kind":"too_many_requests","message":"too many requests: open takes 0.02 a second of one caller"`) {
		t.Errorf("the next: %d %s", got.StatusCode, got.body)
	}
}

func TestLimit_ModelsAreToldInTheirShape(t *testing.T) {
	m := model("m", "org/m", replica(t, 0, hello))
	m.Prefix = "/api/v1"
	r := start(t, gateway.Limits{}, limited(m, spec.RateLimit{Prefix: "/api/v1/", Key: spec.RateLimitKey{Type: "header", Header: "Authorization"}, RPS: 0.02}))
	if got := r.chat(`{"model":"org/m"}`); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	got := r.chat(`{"model":"org/m"}`)
	if got.StatusCode != 429 || got.Header.Get("Retry-After") != "50" || !strings.Contains(got.body, `"type":"requests","param":null,"code":"rate_limit_exceeded"`) {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	got = r.do(r.ask("POST", "http://gateway.localhost/v1/messages", strings.NewReader(`{"model":"org/m"}`), bearer(member)...))
	if got.StatusCode != 429 || !strings.Contains(got.body, `{"type":"error","error":{"type":"rate_limit_error","message":"too many requests`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := r.do(r.ask("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"org/m"}`), bearer(admin)...)); got.StatusCode != 200 {
		t.Errorf("another caller: %d %s", got.StatusCode, got.body)
	}
	if got := r.do(r.ask("POST", "http://gateway.localhost/v1/tokenize", strings.NewReader(`{"model":"org/m"}`), bearer(member)...)); got.StatusCode != http.StatusOK {
		t.Errorf("another path: %d %s", got.StatusCode, got.body)
	}
}

// Of runs that share a model, the limits of the one that gets the request
// count, or of the one that it waits for.
func TestLimit_OfTheRunThatGetsTheRequest(t *testing.T) {
	slow := spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "ip_address"}, RPS: 0.02}
	first, second := limited(model("first", "org/m"), slow), model("second", "org/m", replica(t, 0, hello))
	second.Since = 2
	r := start(t, gateway.Limits{HoldTimeout: 20 * time.Millisecond}, first, second)
	for range 3 {
		if got := r.chat(`{"model":"org/m"}`); got.StatusCode != 200 {
			t.Errorf("the run without a limit: %d %s", got.StatusCode, got.body)
		}
	}
	second.Ready, second.NeverServes = nil, true
	r.plane.set(first, second)
	until(t, "it waits for the first", func() bool { return r.chat(`{"model":"org/m"}`).StatusCode == 503 })
	if got := r.chat(`{"model":"org/m"}`); got.StatusCode != 429 {
		t.Errorf("the run with a limit: %d %s", got.StatusCode, got.body)
	}
}

// Callers that are known are bounded: those who used nothing lately go first,
// then the one who was away longest.
func TestLimit_ManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := limited(public("open"), byHeader("X-User", 0.02, 0))
		ends.IsStopping = true
		g, _ := still(t, gateway.Options{}, ends)
		c := callers{t, g}
		user := func(n int) []string { return []string{"X-User", fmt.Sprint(n)} }
		for i := range 10_000 {
			c.want("new", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(i)...)
		}
		c.want("still known", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(0)...)
		c.want("one more", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(10_000)...)
		c.want("the last to ask stays", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(0)...)
		c.want("the first to ask is forgotten", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(1)...)
		time.Sleep(30 * time.Second)
		c.want("one who has waited not long", "10.0.0.1:1", "http://open.localhost/", []int{503, 429}, user(20_000)...)
		time.Sleep(21 * time.Second) // all others are idle by now
		c.want("one more", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(30_000)...)
		for i := range 9_000 {
			c.want("after the idle left", "10.0.0.1:1", "http://open.localhost/", []int{503}, user(40_000+i)...)
		}
		c.want("who is not idle stays", "10.0.0.1:1", "http://open.localhost/", []int{429}, user(20_000)...)
	})
}

// The callers of all limits of a run are bounded together.
func TestLimit_ManyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := public("open")
		ends.IsStopping = true
		for i := range 16 {
			ends = limited(ends, append(ends.Rules.Limits, byIP(fmt.Sprintf("/%d/", i), 0.02, 0))...)
		}
		g, _ := still(t, gateway.Options{}, ends, public("other"))
		c := callers{t, g}
		for i := range 10_000 {
			c.want("new", fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), fmt.Sprintf("http://open.localhost/%d/", i%16), []int{503})
		}
		c.want("still known", "10.1.0.0:1", "http://open.localhost/0/", []int{429})
		c.want("not of another limit", "10.1.0.0:1", "http://open.localhost/1/", []int{503})
		c.want("the first to ask is forgotten", "10.1.0.1:1", "http://open.localhost/1/", []int{503})
	})
}
