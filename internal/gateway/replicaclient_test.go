package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// rawServer accepts connections, and has the text that answers each request of each of them.
type rawServer struct {
	address string
	conns   atomic.Int32
}

// startRawServer serves each request with answer, which gets the number of the connection and of its request, from 1. An
// empty answer closes the connection.
func startRawServer(t testing.TB, answer func(conn, request int) string) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{address: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			number := int(s.conns.Add(1))
			all.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for i := 1; ; i++ {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					text := answer(number, i)
					if io.WriteString(conn, text); text == "" {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return s
}

func answerOf(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// slow makes the requests of a test come over TLS, and so take the slow path.
func (r *testGateway) slow(t testing.TB, isHTTP2 bool) {
	t.Helper()
	front := httptest.NewUnstartedServer(r.gateway)
	front.Config.ConnContext = gateway.WithConn
	front.EnableHTTP2 = isHTTP2
	front.StartTLS()
	t.Cleanup(front.Close)
	r.server.Close()
	r.server, r.client = front, front.Client()
	t.Cleanup(r.client.CloseIdleConnections)
}

func (r *testGateway) getSlow(path string) response {
	r.t.Helper()
	req := r.newRequest("GET", "https://web.localhost"+path, nil)
	req.Host = "web.localhost"
	return r.do(req)
}

// What a replica sends without being asked never passes for the response to a later request, perhaps of somebody else.
func TestReplicaClient_DropsUnaskedResponses(t *testing.T) {
	for _, c := range []struct{ name, first string }{
		{"behind a response", answerOf("first") + answerOf("unasked")},
		{"behind a body in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n" + answerOf("unasked")},
		{"behind a bodiless one", "HTTP/1.1 304 Not Modified\r\n\r\n" + answerOf("unasked")},
		{"a body of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\nunasked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startRawServer(t, func(conn, _ int) string {
				if conn == 1 {
					return c.first
				}
				return answerOf("second")
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(s.address, 0)))
			r.slow(t, false)
			r.getSlow("/1")
			if got := r.getSlow("/2"); got.body != "second" || s.conns.Load() != 2 {
				t.Errorf("got %q over connection %d", got.body, s.conns.Load())
			}
		})
	}
}

// A replica that closes a kept connection, announced or not, costs no request, over HTTP/2 too.
func TestReplicaClient_ClosedConnections(t *testing.T) {
	for _, isHTTP2 := range []bool{false, true} {
		t.Run(fmt.Sprint(isHTTP2), func(t *testing.T) {
			s := startRawServer(t, func(conn, request int) string {
				switch {
				case conn == 1 && request == 1:
					return answerOf("kept")
				case conn == 1: // it dies instead of an answer
					return ""
				case conn == 2:
					return "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nnew"
				}
				return answerOf("new")
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(s.address, 0)))
			r.slow(t, isHTTP2)
			if got := r.getSlow("/1"); got.body != "kept" || got.ProtoMajor == 2 != isHTTP2 {
				t.Error(got.body, got.Proto)
			}
			for i, conn := range []int32{2, 3} { // the second one is not kept
				if got := r.getSlow("/again"); got.body != "new" || s.conns.Load() != conn {
					t.Errorf("%d: got %d %q over connection %d", i, got.StatusCode, got.body, s.conns.Load())
				}
			}
		})
	}
}

// Bodies pass whole wherever they are cut, with their trailers.
func TestReplicaClient_BodiesInPieces(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nX-Some: thing\r\n"
	for _, c := range []struct {
		name, response, body string
		trailer              http.Header
	}{
		{"a length", head + "Content-Length: 10\r\n\r\n0123456789", "0123456789", nil},
		{"chunks", head + "Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\n012\r\n007\r\n3456789\r\n0\r\n\r\n", "0123456789", nil},
		{"a trailer", head + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n012\r\n0\r\nX-Sum: 3\r\n\r\n", "012",
			http.Header{"X-Sum": {"3"}}},
		{"a trailer without announcement", head + "Transfer-Encoding: chunked\r\n\r\n3\r\n012\r\n0\r\nX-Sum: 3\r\n\r\n", "012",
			http.Header{"X-Sum": {"3"}}},
		{"the end of the connection", head + "\r\n0123456789", "0123456789", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := startRawReplica(t, func(conn net.Conn, _ *http.Request) {
				for i := range c.response {
					io.WriteString(conn, c.response[i:i+1])
					if i%7 == 0 {
						time.Sleep(100 * time.Microsecond)
					}
				}
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(up, 0)))
			for _, isHTTP2 := range []bool{false, true} {
				r.slow(t, isHTTP2)
				got := r.getSlow("/")
				if got.body != c.body || got.Header.Get("X-Some") != "thing" || fmt.Sprint(got.Trailer) != fmt.Sprint(c.trailer) {
					t.Errorf("got %q %v %v", got.body, got.Header, got.Trailer)
				}
			}
		})
	}
}

// What is cut short is not passed on as if it were whole.
func TestReplicaClient_CutResponses(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n012",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n012\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n012\r\nxyz\r\n",
	} {
		up := startRawReplica(t, func(conn net.Conn, _ *http.Request) { io.WriteString(conn, text) })
		r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(up, 0)))
		r.slow(t, false)
		res, err := r.client.Do(r.newRequest("GET", "https://web.localhost/", nil))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("%q was passed on as %q", text, body)
			}
		}
	}
}

// A request does not wait for a connection that hangs while another one becomes free.
func TestReplicaClient_SharesKeptConnections(t *testing.T) {
	l := listenShort(t, 0)
	defer l.Close()
	proceed := make(chan struct{})
	var requests atomic.Int32
	accepted := make(chan error, 1)
	go func() { // it accepts one connection
		conn, err := l.Accept()
		if accepted <- err; err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if requests.Add(1) == 1 {
				<-proceed
			}
			io.WriteString(conn, answerOf("shared"))
		}
	}()
	r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(l.Addr().String(), 0)))
	r.slow(t, false)
	answers := make(chan string, 3)
	send := func() { answers <- r.getSlow("/").body }
	go send()
	waitUntil(t, "the first request", func() bool { return requests.Load() == 1 })
	for range 5 { // they fill the listen queue
		if conn, err := net.DialTimeout("tcp", l.Addr().String(), 50*time.Millisecond); err == nil {
			defer conn.Close()
		}
	}
	go send()
	go send()
	waitUntil(t, "the others", func() bool { return r.gateway.Load()["run-web"].InFlight == 3 })
	began := time.Now()
	close(proceed)
	for range 3 {
		if got := <-answers; got != "shared" {
			t.Error(got)
		}
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("they took %s", took)
	}
}

// The end of a client ends its request at the replica.
func TestReplicaClient_ClientLeaves(t *testing.T) {
	closed := make(chan error, 1)
	up := startRawReplica(t, func(conn net.Conn, _ *http.Request) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
		_, err := conn.Read(make([]byte, 1))
		closed <- err
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("web", targetAt(up, 0)))
	for _, isHTTP2 := range []bool{false, true} {
		r.slow(t, isHTTP2)
		ctx, cancel := context.WithCancel(t.Context())
		res, err := r.client.Do(r.newRequest("GET", "https://web.localhost/", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		res.Body.Close()
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
			t.Fatal("the replica still serves it")
		}
		waitUntil(t, "nothing in flight", func() bool { return r.gateway.Load()["run-web"].InFlight == 0 })
	}
}
