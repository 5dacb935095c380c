package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// startRawReplica serves each connection with serve, and closes it after that. A
// connection with unread data is reset by that.
func startRawReplica(t testing.TB, serve func(net.Conn, *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					serve(conn, req)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// upload sends a body and reads the response at the same time, as curl does, and
// as Go's client does not once it cannot send. The end of the response may be
// missing.
func (r *testGateway) upload(host string, size int64, inChunks bool) response {
	r.t.Helper()
	conn := r.dialGateway()
	defer conn.Close()
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: %s\r\n", host)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		body := io.LimitReader(zeroReader{}, size)
		if inChunks {
			io.WriteString(conn, "Transfer-Encoding: chunked\r\n\r\n")
			io.Copy(httputil.NewChunkedWriter(conn), body)
			return
		}
		fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n", size)
		io.Copy(conn, body)
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	conn.Close()
	<-sent
	return response{res, string(body)}
}

// A replica that refuses an upload sends its response and closes the connection,
// while the gateway still sends the body. The client gets the response.
func TestForward_EarlyResponse(t *testing.T) {
	const requests, size = 20, 20 << 20
	// What a replica has not sent when it resets the connection is lost, also without
	// the gateway: the long response fits the window of a new connection.
	long := strings.Repeat("too large ", 3_000)
	for name, c := range map[string]struct {
		header, body string
		pause        time.Duration // between the response and the end of the connection
	}{
		"that ends the connection":   {"Connection: close\r\nContent-Length: 9\r\n", "too large", 0},
		"that announces a kept one":  {"Content-Length: 9\r\n", "too large", 0},
		"without a body":             {"Content-Length: 0\r\n", "", 0},
		"in chunks":                  {"Transfer-Encoding: chunked\r\n", "9\r\ntoo large\r\n0\r\n\r\n", 0},
		"that is long":               {fmt.Sprintf("Content-Length: %d\r\n", len(long)), long, 0},
		"and a close a little later": {"Content-Length: 9\r\n", "too large", 30 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			replica := startRawReplica(t, func(conn net.Conn, _ *http.Request) {
				io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\n"+c.header+"\r\n"+c.body)
				time.Sleep(c.pause)
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(replica, 0)))
			want := strings.NewReplacer("9\r\n", "", "\r\n0\r\n\r\n", "").Replace(c.body)
			for i := range requests {
				res := r.upload("web.localhost", size, i%2 == 1)
				if res.StatusCode != http.StatusRequestEntityTooLarge || res.body != want {
					t.Fatalf("request %d: %d %.80s", i, res.StatusCode, res.body)
				}
			}
		})
	}
}

// Without a length, the end of the connection is the end of the response. The
// client gets what has arrived. Whether it sees a proper end is up to chance, as
// without the gateway: the system reports a reset once, to a write or to a read.
func TestForward_EarlyResponseWithoutLength(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, _ *http.Request) {
		io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\n\r\ntoo large")
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(replica, 0)))
	for range 10 {
		res := r.upload("web.localhost", 20<<20, false)
		if res.StatusCode != http.StatusRequestEntityTooLarge || res.body != "too large" {
			t.Fatalf("%d %q", res.StatusCode, res.body)
		}
	}
}

func TestForward_EarlyResponseToAModelCall(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, _ *http.Request) {
		io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"+
			`{"error":"large"}`)
	})
	r := startGateway(t, gateway.Limits{}, modelRoute("llama", "llama", targetAt(replica, 0)))
	call := `{"model":"llama","messages":[{"role":"user","content":"` + strings.Repeat("a", 20<<20) + `"}]}`
	for range 10 {
		res := r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(call),
			withToken(member)...))
		if res.StatusCode != http.StatusRequestEntityTooLarge || res.body != `{"error":"large"}` {
			t.Fatalf("%d %.200s", res.StatusCode, res.body)
		}
	}
}

// A replica that resets the connection without a response is not waited for.
func TestForward_ResetWithoutResponse(t *testing.T) {
	replica := startRawReplica(t, func(net.Conn, *http.Request) {})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(replica, 0)))
	began := time.Now()
	res := r.upload("web.localhost", 20<<20, false)
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("%d %.200s", res.StatusCode, res.body)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

// A replica that reads no further does not hold its caller's connection for ever:
// the gateway cannot see meanwhile that the caller has left.
func TestForward_ReplicaThatStopsReading(t *testing.T) {
	ended := make(chan struct{})
	replica := startRawReplica(t, func(net.Conn, *http.Request) { <-ended })
	defer close(ended)
	const limit = 300 * time.Millisecond
	for name, send := range map[string]func(*testGateway) response{
		"an upload": func(r *testGateway) response { return r.upload("web.localhost", 64<<20, false) },
		"a model call": func(r *testGateway) response {
			call := `{"model":"llama","messages":[{"role":"user","content":"` + strings.Repeat("a", 20<<20) + `"}]}`
			return r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(call),
				withToken(member)...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := startGateway(t, gateway.Limits{ResponseTimeout: limit}, publicRoute("web", targetAt(replica, 0)),
				modelRoute("llama", "llama", targetAt(replica, 0)))
			began := time.Now()
			res := send(r)
			if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(res.body, "did not begin to respond") {
				t.Errorf("%d %.200s", res.StatusCode, res.body)
			}
			if took := time.Since(began); took < limit || took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
