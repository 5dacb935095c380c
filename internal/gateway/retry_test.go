package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// startDroppingReplica starts a replica that responds to some requests of each
// connection, and reads more before it closes the connection.
func startDroppingReplica(t *testing.T, answers, more int, answer string) (up route.Target, read *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	read = &atomic.Int64{}
	serve := func(conn net.Conn) {
		defer conn.Close()
		in := bufio.NewReader(conn)
		for n := range answers + more {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if read.Add(1); n >= answers {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return targetAt(l.Addr().String(), 0), read
}

// A model's server may close a connection that it announced to keep.
func TestModels_KeptConnectionThatEnds(t *testing.T) {
	for format, answer := range map[string]string{"openai": "{}", "tgi": `{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":1,"tokens":[]}}`} {
		up, read := startDroppingReplica(t, 1, 1, answer)
		m := modelRoute("m", "org/m", up)
		if format == "tgi" {
			m = tgiRoute("m", chatTemplate(chatml), up)
		}
		r := startGateway(t, gateway.Limits{}, m)
		for i := range 3 {
			got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"a"}]}`)
			if got.StatusCode != 200 {
				t.Errorf("%s, call %d: %d %s", format, i, got.StatusCode, got.body)
			}
		}
		if n := read.Load(); n != 5 {
			t.Errorf("%s: the replica read %d requests, want each but the first twice", format, n)
		}
	}
}

// It may close at any moment: before the request, or within it.
func TestModels_KeptConnectionThatEndsAtAnyMoment(t *testing.T) {
	up, read := startDroppingReplica(t, 1, 0, "{}")
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up))
	body := `{"model":"org/m","messages":[],"user":"` + strings.Repeat("x", 64<<10) + `"}`
	for i := range 300 {
		if got := r.sendChat(body); got.StatusCode != 200 || read.Load() != int64(i+1) {
			t.Fatalf("call %d: %d %s, %d requests", i, got.StatusCode, got.body, read.Load())
		}
	}
}

// A request is not sent again once a new connection accepted it, nor one to a
// service.
func TestForward_SendsNothingTwice(t *testing.T) {
	up, read := startDroppingReplica(t, 0, 1, "{}")
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up))
	if got := r.sendChat(`{"model":"org/m","messages":[]}`); got.StatusCode != 502 || read.Load() != 1 {
		t.Errorf("a new connection: %d, %d requests", got.StatusCode, read.Load())
	}
	up, read = startDroppingReplica(t, 1, 1, "{}")
	r = startGateway(t, gateway.Limits{}, publicRoute("open", up))
	for i, want := range []int{200, 502} {
		got := r.do(r.newRequest("POST", "http://open.localhost/", strings.NewReader("{}")))
		if got.StatusCode != want || read.Load() != int64(i+1) {
			t.Errorf("call %d: %d, %d requests", i, got.StatusCode, read.Load())
		}
	}
}
