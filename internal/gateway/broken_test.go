package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/gateway"
)

func TestForward_BrokenStreamAbortsTheResponse(t *testing.T) {
	for _, known := range []bool{true, false} {
		up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if known {
				w.Header().Set("Content-Length", "100000")
			}
			io.WriteString(w, strings.Repeat("x", 50000))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
		res, err := r.client.Do(r.newRequest("GET", "http://open.localhost/", nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("known length %v: a cut answer of %d bytes looks whole", known, len(got))
		}
	}
}

func TestForward_BrokenReplicas(t *testing.T) {
	raw := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				all.Go(func() {
					defer conn.Close()
					bufio.NewReader(conn).ReadString('\n')
					io.WriteString(conn, answer)
				})
			}
		})
		t.Cleanup(func() { l.Close(); all.Wait() })
		return l.Addr().String()
	}
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cases := []struct {
		name, address string
		status        int
		kind          string
	}{
		{"closes at once", raw(""), 502, "bad_gateway"},
		{"no HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n"), 502, "bad_gateway"},
		{"header without end", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n"), 502, "bad_gateway"},
		{"two lengths", raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502, "bad_gateway"},
		{"switches unasked", raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), 502, "bad_gateway"},
		{"a closed port", closedPort(t), 502, "bad_gateway"},
		{"never answers", up.Address, 504, "timeout"},
	}
	for _, c := range cases {
		r := startGateway(t, gateway.Limits{RefusedTimeout: time.Millisecond, ResponseTimeout: 200 * time.Millisecond}, publicRoute("open", targetAt(c.address, 0)))
		got := r.get("http://open.localhost/")
		if got.StatusCode != c.status || !strings.Contains(got.body, `"kind":"`+c.kind+`"`) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
		if strings.Contains(got.body, c.address) {
			t.Errorf("%s: the response contains an address: %s", c.name, got.body)
		}
	}
}

func TestForward_RetriesAfterARefusedConnection(t *testing.T) {
	up := startReplica(t, 1, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := startGateway(t, gateway.Limits{}, publicRoute("open", targetAt(closedPort(t), 0), up))
	for range 10 {
		if got := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("body"))); got.StatusCode != 200 || got.body != "body" {
			t.Fatalf("%d %q", got.StatusCode, got.body)
		}
	}
	if load := r.gateway.Load()["run-open"]; load.Accepted != 10 {
		t.Errorf("load %+v", load)
	}
	waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

func TestForward_SendsABodyOnce(t *testing.T) {
	var calls atomic.Int32
	dies := func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		calls.Add(1)
		panic(http.ErrAbortHandler)
	}
	r := startGateway(t, gateway.Limits{}, publicRoute("open", startReplica(t, 0, dies), startReplica(t, 1, dies)))
	got := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("body")))
	if got.StatusCode != 502 || calls.Load() != 1 {
		t.Errorf("status %d after %d calls", got.StatusCode, calls.Load())
	}
}

func TestForward_WaitsForARestartingReplica(t *testing.T) {
	gone := closedPort(t)
	r := startGateway(t, gateway.Limits{RefusedTimeout: 20 * time.Second}, publicRoute("open", targetAt(gone, 0)))
	done := make(chan response, 1)
	go func() { done <- r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("body"))) }()
	waitUntil(t, "the refused request being held", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	r.plane.setRoutes(publicRoute("open")) // the crash is seen
	r.plane.setRoutes(publicRoute("open", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
	if got := <-done; got.StatusCode != 200 || got.body != "body" {
		t.Errorf("%d %q", got.StatusCode, got.body)
	}
	if load := r.gateway.Load()["run-open"]; load.Accepted != 1 || load.Held != 0 {
		t.Errorf("load %+v", load)
	}
	waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

func TestForward_BrokenRequestBody(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	r := startGateway(t, gateway.Limits{StallTimeout: 100 * time.Millisecond}, publicRoute("open", up), modelRoute("m", "org/m", up))
	for name, head := range map[string]string{
		"bad chunk":       "POST / HTTP/1.1\r\nHost: open.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
		"stalls":          "POST / HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 100\r\n\r\nhello",
		"stalls, a model": "POST /v1/completions HTTP/1.1\r\nHost: gateway.localhost\r\nAuthorization: Bearer " + member + "\r\nContent-Length: 100\r\n\r\nhello",
	} {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, head)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "HTTP/1.1 400 Bad Request\r\n" {
			t.Errorf("%s: %q, %v\n%s", name, line, err, r.log)
		}
		conn.Close()
	}
}

func TestForward_ClientThatReadsNothing(t *testing.T) {
	ended := make(chan struct{})
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		io.Copy(w, zeroReader{})
	})
	r := startGateway(t, gateway.Limits{StallTimeout: 200 * time.Millisecond}, publicRoute("open", up))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
	<-ended
	waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

// The connection serves other handlers next, for longer than the stall timeout.
func TestForward_DeadlinesEndWithTheRequest(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			select {
			case <-time.After(400 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, n)
	})
	r := startGateway(t, gateway.Limits{StallTimeout: 100 * time.Millisecond}, publicRoute("open", up))
	for range 2 {
		for _, path := range []string{"/", "/slow"} {
			got := r.do(r.newRequest("POST", "http://open.localhost"+path, strings.NewReader("body")))
			if got.StatusCode != 200 || got.body != "4" {
				t.Errorf("%s: %d %q", path, got.StatusCode, got.body)
			}
		}
	}
}

func TestForward_Concurrently(t *testing.T) {
	var targets = []int{0, 0, 0}
	var mu sync.Mutex
	serve := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			targets[n]++
			mu.Unlock()
			io.Copy(w, r.Body)
		}
	}
	route := publicRoute("open", startReplica(t, 0, serve(0)), startReplica(t, 1, serve(1)), startReplica(t, 2, serve(2)))
	r := startGateway(t, gateway.Limits{}, route)
	var all sync.WaitGroup
	fail := make(chan error, 1000)
	for i := range 16 {
		all.Go(func() {
			for j := range 30 {
				body := fmt.Sprintf("%d-%d", i, j)
				res, err := r.client.Do(r.newRequest("POST", "http://open.localhost/", strings.NewReader(body)))
				if err != nil {
					fail <- err
					continue
				}
				got, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if string(got) != body {
					fail <- errors.New("mixed up: " + string(got))
				}
			}
		})
	}
	for range 50 { // new tables arrive at the same time
		r.plane.setRoutes(route)
	}
	all.Wait()
	close(fail)
	for err := range fail {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Min(targets) < 100 {
		t.Errorf("shared unevenly: %v", targets)
	}
	waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-open"].InFlight == 0 })
}

// Go checks the Host header, but not the host in a request line. One with quotes
// could forge another client in the Forwarded header.
func TestForward_HostWithQuotes(t *testing.T) {
	asked := make(chan string, 1)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", startReplica(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Forwarded")
	})))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET http://x\",for=6.6.6.6;host=\"/proxy/services/main/open/ HTTP/1.1\r\nHost: x\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if line != "HTTP/1.1 400 Bad Request\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	select {
	case got := <-asked:
		t.Errorf("the replica got %s", got)
	default:
	}
}
