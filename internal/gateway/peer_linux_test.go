package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/gateway"
)

// The request of a client that disconnects while it waits is not sent: a client
// that times out and tries again would pay twice.
func TestPeer_DisconnectedClientIsNotForwarded(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int
		chunked bool
	}{{"small", 3, false}, {"thirty kilobytes", 30_000, false}, {"chunked", 3, true}, {"chunked and long", 100_000, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the gateway checks once a second
			var got atomic.Int64
			up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				got.Add(1)
				io.Copy(io.Discard, r.Body)
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("open"))
			held := func(n int) {
				waitUntil(t, fmt.Sprint(n, " held"), func() bool { return r.gateway.Load()["run-open"].Held == n })
			}
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan error, 3)
			for i := range 3 {
				var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
				if c.chunked {
					body = io.MultiReader(body)
				}
				go func() {
					_, err := r.client.Do(r.newRequest("POST", "http://open.localhost/", body).WithContext(ctx))
					left <- err
				}()
				held(i + 1)
			}
			cancel()
			for range 3 {
				if <-left == nil {
					t.Error("answered")
				}
			}
			held(0)
			r.plane.setRoutes(publicRoute("open", up))
			if res := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("stays"))); res.StatusCode != 200 || got.Load() != 1 {
				t.Errorf("%d %s; the replica was given %d requests", res.StatusCode, res.body, got.Load())
			}
		})
	}
}

// A disconnect within the body is detected, too.
func TestPeer_DisconnectWithinTheBody(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, publicRoute("open"))
	conn := r.dialGateway()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 10\r\n\r\nhalf")
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	conn.Close()
	waitUntil(t, "it is held no more", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
}
