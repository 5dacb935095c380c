package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// startBrokenReplica starts a replica that accepts connections, reads requests,
// and writes begin before it breaks the connection.
func startBrokenReplica(t *testing.T, num int, begin string) (route.Target, *atomic.Int64) {
	var requests atomic.Int64
	up := startReplica(t, num, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		serveBroken(begin)(w, r)
	})
	return up, &requests
}

func TestRetry_ReplayableRequests(t *testing.T) {
	well := startReplica(t, 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Replica", "1")
		io.WriteString(w, "well")
	})
	for _, c := range []struct {
		name, method, body, begin string
		model                     bool
		status                    int
	}{
		{"GET", "GET", "", "", false, 200},
		{"HEAD", "HEAD", "", "", false, 200},
		{"OPTIONS", "OPTIONS", "", "", false, 200},
		{"GET with a body", "GET", "body", "", false, 502},
		{"POST", "POST", "body", "", false, 502},
		{"POST without a body", "POST", "", "", false, 502},
		{"DELETE", "DELETE", "", "", false, 502},
		{"GET that was begun to be answered", "GET", "", "HTTP/1.1 200", false, 502},
		{"a model's", "POST", `{"model":"org/m"}`, "", true, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, requests := startBrokenReplica(t, 0, c.begin)
			m := modelRoute("open", "org/m", bad, well)
			m.Auth = false
			r := startGateway(t, gateway.Limits{}, m)
			send := func() response {
				url, more := "http://open.localhost/x?q=1", []string{}
				if c.model {
					url, more = "http://gateway.localhost/v1/completions", withToken(member)
				}
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				return r.do(r.newRequest(c.method, url, body, more...))
			}
			got := send()
			if got.StatusCode != c.status || requests.Load() != 1 || c.status == 200 && got.Header.Get("X-Replica") != "1" {
				t.Errorf("%d %s, the broken one was asked %d times", got.StatusCode, got.body, requests.Load())
			}
			for range 3 { // others are preferred for a while, whatever the request
				if got := send(); got.StatusCode != 200 || requests.Load() != 1 {
					t.Errorf("the next: %d %s, the broken one was asked %d times", got.StatusCode, got.body, requests.Load())
				}
			}
			waitUntil(t, "nothing is in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
			if n := r.gateway.Load()["run-open"].Accepted; n != 4 {
				t.Errorf("%d requests were counted", n)
			}
		})
	}
}

func TestRetry_IsLimited(t *testing.T) {
	var all []*atomic.Int64
	var ready []route.Target
	for i := range 5 {
		up, requests := startBrokenReplica(t, i, "")
		all, ready = append(all, requests), append(ready, up)
	}
	requests := func() (n int64) {
		for _, one := range all {
			n += one.Load()
		}
		return n
	}
	r := startGateway(t, gateway.Limits{}, publicRoute("open", ready...))
	if got := r.get("http://open.localhost/"); got.StatusCode != 502 || requests() != 3 {
		t.Errorf("%d %s after %d", got.StatusCode, got.body, requests())
	}
	alone, asks := startBrokenReplica(t, 0, "")
	r = startGateway(t, gateway.Limits{}, publicRoute("open", alone)) // it does not wait for another replica
	if got := r.get("http://open.localhost/"); got.StatusCode != 502 || asks.Load() != 1 {
		t.Errorf("alone: %d %s after %d", got.StatusCode, got.body, asks.Load())
	}
	r = startGateway(t, gateway.Limits{}, publicRoute("open", alone, targetAt(closedPort(t), 1), startReplica(t, 2, serveHello)))
	for range 3 {
		if got := r.get("http://open.localhost/"); got.StatusCode != 200 {
			t.Errorf("one breaks, one refuses: %d %s", got.StatusCode, got.body)
		}
	}
	if strings.Contains(r.log.String(), "did not answer") {
		t.Error("a warning for what went well")
	}
}
