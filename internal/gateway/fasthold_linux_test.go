package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"dstack/internal/gateway"
)

// TestFastHold_ClientLeaves has clients leave whose requests wait with bodies that no buffer of their connection holds.
func TestFastHold_ClientLeaves(t *testing.T) {
	for _, size := range []int{300_000, 10_000_000} {
		for name, head := range map[string]string{
			"length": fmt.Sprintf("Content-Length: %d\r\n\r\n", size),
			"chunks": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size),
		} {
			t.Run(fmt.Sprint(size, name), func(t *testing.T) {
				r := startGateway(t, gateway.Limits{}, publicRoute("open"))
				conn := r.dialGateway()
				fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: open.localhost\r\n", head)
				if _, err := conn.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
				conn.Close()
				waitUntil(t, "it is held no more", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
			})
		}
	}
}

// TestFastHold_BeyondTheBudget forwards bodies wholly of which the budget holds only some.
func TestFastHold_BeyondTheBudget(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	r := startGateway(t, gateway.Limits{HeldBytes: 1 << 20, BodyBytes: 16 << 20}, publicRoute("open"))
	const size, count = 900_000, 8
	for range 2 { // what was held is given back
		done := make(chan response, count)
		for range count {
			go func() {
				done <- r.do(r.newRequest("POST", "http://open.localhost/", bytes.NewReader(make([]byte, size))))
			}()
		}
		waitUntil(t, "all are held", func() bool { return r.gateway.Load()["run-open"].Held == count })
		r.plane.setRoutes(publicRoute("open", up))
		for range count {
			if got := <-done; got.StatusCode != 200 || got.body != fmt.Sprint(size) {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		}
		r.plane.setRoutes(publicRoute("open"))
	}
}
