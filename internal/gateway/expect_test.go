package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// A client that holds back its body (Expect: 100-continue) waits for the gateway,
// not for a second: also where the replica never asks for the body, and for
// models, whose body the gateway reads first.
func TestForward_ExpectContinueIsFast(t *testing.T) {
	asks := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	silent := targetAt(startRawReplica(t, func(conn net.Conn, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // http.ReadRequest never sends 100
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d", n)
	}), 0)
	refuses := func(status int) route.Target {
		return startReplica(t, 0, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "refused", status) })
	}
	r := startGateway(t, gateway.Limits{}, publicRoute("asks", asks), publicRoute("silent", silent),
		publicRoute("large", refuses(http.StatusRequestEntityTooLarge)),
		publicRoute("never", refuses(http.StatusExpectationFailed)), modelRoute("llama", "llama", silent))
	call := `{"model":"llama","messages":[]}`
	for _, c := range []struct {
		host, path, body, wants string
		status                  int
		isRefused               bool // before the body is sent
	}{
		{"asks.localhost", "/", "12345", "5", 200, false},
		{"silent.localhost", "/", "12345", "5", 200, false},
		{"large.localhost", "/", strings.Repeat("a", 20<<20), "refused", 413, true},
		{"never.localhost", "/", "12345", "refused", 417, true},
		{"gateway.localhost", "/v1/chat/completions", call, fmt.Sprint(len(call)), 200, false},
	} {
		conn := r.dialGateway()
		began := time.Now()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
			"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", c.path, c.host, member, len(c.body))
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(c.host, err)
		}
		if (res.StatusCode != http.StatusContinue) != c.isRefused {
			t.Errorf("%s: the first response is %d", c.host, res.StatusCode)
		}
		if res.StatusCode == http.StatusContinue {
			io.WriteString(conn, c.body)
			if res, err = http.ReadResponse(in, nil); err != nil {
				t.Fatal(c.host, err)
			}
		}
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != c.status || strings.TrimSpace(string(body)) != c.wants || err != nil {
			t.Errorf("%s: %d %q %v", c.host, res.StatusCode, body, err)
		}
		if took := time.Since(began); took > 700*time.Millisecond {
			t.Errorf("%s: it took %s", c.host, took)
		}
	}
}
