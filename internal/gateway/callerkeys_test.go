package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// setKeys publishes keys for callers under the next version.
func (p *fakeControlPlane) setKeys(keys ...route.Key) {
	p.mu.Lock()
	p.table.Version++
	p.table.Keys = keys
	p.mu.Unlock()
	p.changes.Notify()
}

// newKey returns a key whose secret is dstkey_<name>.
func newKey(name string, change ...func(*route.Key)) route.Key {
	k := route.Key{Digest: hashToken("dstkey_" + name), ID: "id-" + name, Project: "main", Name: name}
	for _, c := range change {
		c(&k)
	}
	return k
}

func forServices(names ...string) func(*route.Key) {
	return func(k *route.Key) { k.Services = names }
}
func forModels(names ...string) func(*route.Key) { return func(k *route.Key) { k.Models = names } }

// withKeys publishes keys, and waits until the gateway knows the last one.
func (r *testGateway) withKeys(keys ...route.Key) *testGateway {
	r.t.Helper()
	r.plane.setKeys(keys...)
	waitUntil(r.t, "the keys", func() bool {
		r.plane.mu.Lock()
		defer r.plane.mu.Unlock()
		return r.plane.applied == r.plane.table.Version
	})
	return r
}

func bearerKey(name string) []string { return withToken("dstkey_" + name) }

func TestCallerKey_Scope(t *testing.T) {
	var seen seenRequests
	up := startReplica(t, 0, seen.serve)
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", up), serviceRoute("other", up), publicRoute("open", up),
		modelRoute("chat", "smol", up), modelRoute("large", "big", up)).withKeys(
		newKey("all"), newKey("web", forServices("web")), newKey("smol", forModels("smol")),
		newKey("team", func(k *route.Key) { k.Project = "team" }),
		newKey("past", func(k *route.Key) { k.Expires = time.Now().Add(-time.Second).Unix() }))
	for _, c := range []struct {
		key    string
		path   string // of a service by path, or a model
		status int
		says   string
	}{
		{"all", "web", 200, ""},
		{"all", "smol", 200, ""},
		{"web", "web", 200, ""},
		{"web", "other", 403, "this key is not for the service other"},
		{"web", "no-such", 403, "this key is not for the service no-such"},
		{"web", "chat", 403, "not for the service chat"},
		{"web", "smol", 404, "does not exist or you do not have access to it"},
		{"smol", "smol", 200, ""},
		{"smol", "big", 404, "does not exist or you do not have access to it"},
		{"smol", "chat", 403, "not for the service chat"},
		{"team", "web", 403, "this key gives no access to the project main"},
		{"team", "smol", 403, "this key gives no access to the project main"},
		{"past", "web", 401, "was revoked, has expired"},
		{"past", "smol", 401, "was revoked, has expired"},
		{"unknown", "web", 401, "this key is not valid"},
		{"smol", "open", 200, ""},
	} {
		t.Run(c.key+" for "+c.path, func(t *testing.T) {
			req := r.newRequest("GET", "http://"+c.path+".localhost/", nil, bearerKey(c.key)...)
			if c.path == "smol" || c.path == "big" {
				req = r.newRequest("POST", "http://localhost/v1/chat/completions", strings.NewReader(`{"model": "`+c.path+`"}`), bearerKey(c.key)...)
			}
			res := r.do(req)
			if res.StatusCode != c.status || !strings.Contains(res.body, c.says) {
				t.Errorf("%d %s, want %d", res.StatusCode, res.body, c.status)
			}
			if strings.Contains(res.body, "dstkey_") {
				t.Errorf("the answer shows the key: %s", res.body)
			}
		})
	}
	if text := seen.String(); strings.Contains(text, "dstkey_") {
		t.Errorf("a replica saw a key: %s", text)
	}
	if strings.Contains(r.log.String(), "dstkey_") {
		t.Error("the log has a key")
	}
	for key, want := range map[string]string{"all": "big smol", "smol": "smol", "web": ""} {
		res := r.get("http://localhost/v1/models", bearerKey(key)...)
		var names []string
		for _, name := range []string{"big", "smol"} {
			if strings.Contains(res.body, `"id":"`+name+`"`) {
				names = append(names, name)
			}
		}
		if got := strings.Join(names, " "); got != want || res.StatusCode != 200 {
			t.Errorf("%s lists %q, want %q: %d %s", key, got, want, res.StatusCode, res.body)
		}
	}
	if res := r.get("http://localhost/v1/models/big", bearerKey("smol")...); res.StatusCode != 404 {
		t.Errorf("a model that the key is not for: %d", res.StatusCode)
	}
	if res := r.get("http://localhost/v1/models", "X-Api-Key", "dstkey_smol", "Anthropic-Version", "2023-06-01"); res.StatusCode != 200 {
		t.Errorf("as clients of Anthropic's API send it: %d %s", res.StatusCode, res.body)
	}
	waitUntil(t, "the counts", func() bool {
		report, _ := r.plane.lastReport()
		return report.Keys["id-smol"] == dstack.KeyCounts{Requests: 3, Refused: 3} && report.Keys["id-team"] == dstack.KeyCounts{Refused: 2}
	})
	for _, want := range []string{"dstack_key_requests_total{key=smol,project=main} 3", "dstack_key_requests_refused_total{key=web,project=main} 4"} {
		if said := gatherMetrics(t, r.gateway); !strings.Contains(said, want) {
			t.Errorf("no %s in %s", want, said)
		}
	}
}

// A gateway that may not know which tokens are revoked says so, and keeps nobody in.
func TestCallerKey_AfterTokensEnded(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", startReplica(t, 0, serveHello))).withKeys(newKey("a"))
	r.plane.mu.Lock()
	r.plane.table.Tokens, r.plane.table.TokensEnded = nil, true
	r.plane.mu.Unlock()
	r.withKeys()
	for _, token := range []string{"dstkey_a", member} {
		res := r.get("http://web.localhost/", withToken(token)...)
		if res.StatusCode != 503 || !strings.Contains(res.body, "accepts no tokens until it has") || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", token, res.StatusCode, res.body)
		}
	}
	if res := r.get("http://web.localhost/"); res.StatusCode != 401 {
		t.Errorf("without a token: %d", res.StatusCode)
	}
}

// A browser may sign in with a key, and is out when the key ends.
func TestCallerKey_BrowserSession(t *testing.T) {
	var seen seenRequests
	r := startGateway(t, gateway.Limits{}, serviceRoute("web", startReplica(t, 0, seen.serve))).withKeys(
		newKey("web", forServices("web")), newKey("other", forServices("other")))
	b := r.newBrowser()
	if res := b.signIn("http://web.localhost", "dstkey_other", "/"); res.StatusCode != 403 || !strings.Contains(res.body, "This key is not for the service web.") {
		t.Errorf("with a key for another service: %d %s", res.StatusCode, res.body)
	}
	if res := b.signIn("http://web.localhost", "dstkey_web", "/next"); res.StatusCode != 303 {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	if res := b.get("http://web.localhost/next"); res.StatusCode != 200 {
		t.Errorf("in the session: %d", res.StatusCode)
	}
	r.withKeys()
	if res := b.get("http://web.localhost/next"); res.StatusCode != 401 {
		t.Errorf("after the key was revoked: %d", res.StatusCode)
	}
	if strings.Contains(seen.String(), "dstkey_") || strings.Contains(seen.String(), "dstack-session") {
		t.Error("the replica saw the key or the cookie")
	}
}

// What is in flight with a key ends with it: a stream is cut, a WebSocket closes, and
// what has not begun to be answered gets 401. Other callers notice nothing.
func TestCallerKey_EndsWhatIsInFlight(t *testing.T) {
	release := make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			c, err := websocket.Accept(w, r, nil)
			if err == nil {
				_, _, _ = c.Read(context.WithoutCancel(r.Context()))
				c.CloseNow()
			}
			return
		case "/stream", "/stays":
			w.WriteHeader(200)
			io.WriteString(w, "first\n")
			http.NewResponseController(w).Flush()
		}
		if r.URL.Path == "/stays" {
			<-release
			io.WriteString(w, "last\n")
			return
		}
		<-r.Context().Done()
	})
	for _, c := range []struct {
		name string
		key  func(r *testGateway) route.Key
		end  func(r *testGateway)
	}{
		{"revoked", func(*testGateway) route.Key { return newKey("a") }, func(r *testGateway) { r.plane.setKeys(newKey("b")) }},
		{"expired", func(*testGateway) route.Key {
			return newKey("a", func(k *route.Key) { k.Expires = time.Now().Add(2 * time.Second).Unix() })
		}, func(*testGateway) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startGateway(t, gateway.Limits{}, serviceRoute("web", up), serviceRoute("waits"))
			r.withKeys(c.key(r), newKey("b"))
			open := func(key, path string) *http.Response {
				res, err := r.client.Do(r.newRequest("GET", "http://web.localhost"+path, nil, bearerKey(key)...))
				if err != nil {
					t.Error(err)
				}
				return res
			}
			ended, stays := open("a", "/stream"), open("b", "/stays")
			defer stays.Body.Close()
			defer ended.Body.Close()
			results := make(chan string, 2)
			for _, host := range []string{"web", "waits"} { // neither has answered yet
				go func() {
					res, err := r.client.Do(r.newRequest("GET", "http://"+host+".localhost/", nil, bearerKey("a")...))
					if err != nil {
						results <- err.Error()
						return
					}
					defer res.Body.Close()
					body, _ := io.ReadAll(res.Body)
					results <- fmt.Sprint(res.StatusCode, string(body))
				}()
			}
			socket, _, err := websocket.Dial(t.Context(), "ws://"+r.server.Listener.Addr().String()+"/socket",
				&websocket.DialOptions{Host: "web.localhost", HTTPHeader: http.Header{"Authorization": {"Bearer dstkey_a"}}})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.CloseNow()
			waitUntil(t, "the requests", func() bool {
				return r.gateway.Load()["run-web"].InFlight == 4 && r.gateway.Load()["run-waits"].Held == 1
			})
			c.end(r)
			if rest, err := io.ReadAll(ended.Body); err == nil || string(rest) != "first\n" {
				t.Errorf("the stream goes on: %q, %v", rest, err)
			}
			for range 2 {
				if got := <-results; !strings.HasPrefix(got, "401") || !strings.Contains(got, "revoked") {
					t.Errorf("got %s", got)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, _, err := socket.Read(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the WebSocket: %v", err)
			}
			select {
			case release <- struct{}{}:
			case <-time.After(5 * time.Second):
				t.Fatal("the stream of another key is gone")
			}
			lines := bufio.NewScanner(stays.Body)
			if got := []bool{lines.Scan(), lines.Scan()}; !got[0] || !got[1] || lines.Text() != "last" {
				t.Errorf("the stream of another key ended with %q", lines.Text())
			}
			waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-web"].InFlight == 0 })
		})
	}
}

// A key's limit is counted by the gateway's share of it.
func TestCallerKey_Limit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := serviceRoute("web")
		ends.IsStopping = true // a request that passes gets 503
		g, p := startWithoutNetwork(t, gateway.Options{}, ends)
		p.setKeys(newKey("two", func(k *route.Key) { k.RPS = 2 }), newKey("slow", func(k *route.Key) { k.RPS = 0.02 }), newKey("free"))
		synctest.Wait()
		c := callers{t, g}
		const passes, not, web = 503, 429, "http://web.localhost/"
		c.expectStatuses("the requests of a second at once", "10.0.0.1:1", web, []int{passes, passes, not}, bearerKey("two")...)
		c.expectStatuses("from elsewhere", "10.0.0.2:1", web, []int{not}, bearerKey("two")...)
		c.expectStatuses("one in fifty seconds", "10.0.0.2:1", web, []int{passes, not}, bearerKey("slow")...)
		c.expectStatuses("without a limit", "10.0.0.2:1", web, []int{passes, passes, passes, passes}, bearerKey("free")...)
		time.Sleep(time.Second)
		c.expectStatuses("a second later", "10.0.0.1:1", web, []int{passes, passes, not}, bearerKey("two")...)
		time.Sleep(1100 * time.Millisecond) // the next report
		report, _ := p.lastReport()
		if report.Keys["id-two"] != (dstack.KeyCounts{Requests: 4, Refused: 3}) || report.Demands[route.KeyLimitID("id-two")] == 0 {
			t.Errorf("got %+v", report)
		}
		// Three gateways, and another one uses most of the key's limit.
		p.mu.Lock()
		p.answer = dstack.LoadAnswer{Gateways: 3, Shares: map[dstack.LimitID]float64{}}
		for id := range report.Demands {
			p.answer.Shares[id] = .25
		}
		p.mu.Unlock()
		time.Sleep(3 * time.Second) // the next report
		c.expectStatuses("a quarter of it", "10.0.0.1:1", web, []int{passes, not}, bearerKey("two")...)
		time.Sleep(time.Second)
		c.expectStatuses("after a second", "10.0.0.1:1", web, []int{not}, bearerKey("two")...)
		time.Sleep(time.Second)
		c.expectStatuses("after two", "10.0.0.1:1", web, []int{passes, not}, bearerKey("two")...)
		p.failReports()
		time.Sleep(15 * time.Second) // the server is away: a third of the limit for each
		c.expectStatuses("without the server", "10.0.0.1:1", web, []int{passes, not}, bearerKey("two")...)
		time.Sleep(1500 * time.Millisecond)
		c.expectStatuses("two thirds a second", "10.0.0.1:1", web, []int{passes, not}, bearerKey("two")...)
	})
}

// failReports makes reports fail from now on.
func (p *fakeControlPlane) failReports() {
	p.mu.Lock()
	p.reportFail = errServerAway
	p.mu.Unlock()
}
