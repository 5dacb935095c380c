package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// hostAddress is where each host of these tests has its replica.
const hostAddress = "10.0.0.5:8000"

// onHost moves a replica to a network that only the dialer of a host reaches.
func onHost(d *dial.Dialer, host string, target route.Target) route.Target {
	address := target.Address
	d.AddHost(host, func(ctx context.Context, wanted string) (net.Conn, error) {
		if wanted != hostAddress {
			return nil, errors.New("unexpected address " + wanted)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})
	target.Endpoint = dstack.Endpoint{Host: host, Address: hostAddress}
	return target
}

// hostHeaders records the Host headers that a replica sees, by path.
type hostHeaders struct {
	mu   sync.Mutex
	seen map[string]string
}

func (h *hostHeaders) record(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		if h.seen == nil {
			h.seen = map[string]string{}
		}
		h.seen[r.URL.Path] = r.Host
		h.mu.Unlock()
		next(w, r)
	}
}

func (h *hostHeaders) at(path string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[path]
}

func TestDialer_ReplicaOnAHost(t *testing.T) {
	var d dial.Dialer
	var hosts hostHeaders
	up := onHost(&d, "gpu 1", startReplica(t, 0, hosts.record(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	})))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, publicRoute("open", up))
	if got := r.get("http://open.localhost/get"); got.body != "GET " || hosts.at("/get") != "open.localhost" {
		t.Errorf("%d %q, Host %q", got.StatusCode, got.body, hosts.at("/get"))
	}
	got := r.do(r.newRequest("POST", "http://open.localhost/post", strings.NewReader("hello")))
	if got.body != "POST hello" || hosts.at("/post") != "open.localhost" {
		t.Errorf("%d %q, Host %q", got.StatusCode, got.body, hosts.at("/post"))
	}
	conn := r.dialGateway()
	io.WriteString(conn, "GET /proxy/services/main/open/old HTTP/1.0\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || hosts.at("/old") != hostAddress {
		t.Errorf("without a Host header: %d, Host %q", res.StatusCode, hosts.at("/old"))
	}
}

func TestDialer_StreamFromAHost(t *testing.T) {
	var d dial.Dialer
	next := make(chan struct{})
	up := onHost(&d, "gpu1", startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, modelRoute("llama", "org/m", up))
	res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"org/m","stream":true}`), withToken(member)...))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// Two hosts have a replica at the same address. One that refuses connections
// excludes only itself.
func TestDialer_RetriesOnAnotherHost(t *testing.T) {
	var d dial.Dialer
	refuses := onHost(&d, "gpu1", targetAt(closedPort(t), 0))
	refuses.Replica = "r0"
	up := onHost(&d, "gpu2", startReplica(t, 1, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s at %s", body, r.Host)
	}))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, publicRoute("open", refuses, up), modelRoute("llama", "org/m", refuses, up))
	began := time.Now()
	for range 3 {
		if got := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("hello"))); got.body != "hello at open.localhost" {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
		if got := r.sendChat(`{"model":"org/m"}`); got.body != `{"model":"org/m"} at gateway.localhost` {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

// lateRefusal is a connection whose port turns out to be closed with the first Read, as one through the API server of a cluster.
type lateRefusal struct{ net.Conn }

func (c lateRefusal) Write(p []byte) (int, error) { return len(p), nil }

func (c lateRefusal) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: fmt.Errorf("%w: nothing listens on port 8000 of the pod", syscall.ECONNREFUSED)}
}

// Nothing of the request has reached the replica, so that another one gets it.
func TestDialer_RefusesWithTheFirstRead(t *testing.T) {
	var d dial.Dialer
	d.AddHost("cluster", func(context.Context, string) (net.Conn, error) {
		ours, _ := net.Pipe()
		return lateRefusal{ours}, nil
	})
	refuses := route.Target{Endpoint: dstack.Endpoint{Host: "cluster", Address: hostAddress}, Replica: "r0"}
	up := onHost(&d, "gpu2", startReplica(t, 1, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, publicRoute("open", refuses, up), modelRoute("llama", "org/m", refuses, up))
	for range 3 {
		if got := r.get("http://open.localhost/"); got.body != "GET " {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
		if got := r.sendChat(`{"model":"org/m"}`); got.body != `POST {"model":"org/m"}` {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
	}
	alone := startGatewayWith(t, gateway.Options{Dialer: &d, Limits: gateway.Limits{RefusedTimeout: 10 * time.Millisecond}}, publicRoute("open", refuses))
	if got := alone.get("http://open.localhost/"); got.StatusCode != 502 || !strings.Contains(got.body, "accepts no connections") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// A connection that breaks moves a GET to the replica of another host.
func TestDialer_BrokenConnectionOfAHost(t *testing.T) {
	var d dial.Dialer
	breaks := onHost(&d, "gpu1", startReplica(t, 0, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	breaks.Replica = "r0"
	up := onHost(&d, "gpu2", startReplica(t, 1, serveHello))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, publicRoute("open", breaks, up))
	for range 3 {
		if got := r.get("http://open.localhost/x"); got.body != "hello from /x" {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
	}
}

func TestDialer_UnknownHost(t *testing.T) {
	gone := targetAt(hostAddress, 0)
	gone.Host = "nowhere"
	r := startGateway(t, gateway.Limits{RefusedTimeout: 10 * time.Millisecond}, publicRoute("open", gone))
	if got := r.get("http://open.localhost/"); got.StatusCode != 502 || !strings.Contains(got.body, "accepts no connections") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// The dialer of a host gets no longer than the timeout for connections.
func TestDialer_SlowHost(t *testing.T) {
	var d dial.Dialer
	d.AddHost("slow", func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	slow := targetAt(hostAddress, 0)
	slow.Host = "slow"
	limits := gateway.Limits{ConnectTimeout: 20 * time.Millisecond, RefusedTimeout: 10 * time.Millisecond}
	r := startGatewayWith(t, gateway.Options{Dialer: &d, Limits: limits}, publicRoute("open", slow))
	began := time.Now()
	if got := r.get("http://open.localhost/"); got.StatusCode != 502 || !strings.Contains(got.body, "accepts no connections") || time.Since(began) > 3*time.Second {
		t.Errorf("%d %s after %s", got.StatusCode, got.body, time.Since(began))
	}
}

// The gateway's own requests to a TGI server name the address, never the
// encoded endpoint.
func TestDialer_TGIOnAHost(t *testing.T) {
	var d dial.Dialer
	var hosts hostHeaders
	server := &tgi{info: `{"chat_template":"{{ messages[0].content }}"}`}
	up := onHost(&d, "gpu1", startReplica(t, 0, hosts.record(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			io.WriteString(w, `[{"id":1}]`)
			return
		}
		server.ServeHTTP(w, r)
	})))
	r := startGatewayWith(t, gateway.Options{Dialer: &d}, tgiRoute("m", nil, up))
	for _, more := range []string{``, `,"stream":true,"stream_options":{"include_usage":true}`} {
		if got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]` + more + `}`); got.StatusCode != 200 || !strings.Contains(got.body, "said") {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
	for _, path := range []string{"/info", "/generate", "/generate_stream", "/tokenize"} {
		if got := hosts.at(path); got != hostAddress {
			t.Errorf("%s: Host %q", path, got)
		}
	}
}
