package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/gateway"
)

// Who has left is not held any more, and its POST is never sent: a client with
// a time limit that tries again would pay twice.
func TestPeer_WhoHasLeftIsNeverSent(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int
		chunked bool
	}{{"small", 3, false}, {"thirty kilobytes", 30_000, false}, {"chunked", 3, true}, {"chunked and long", 100_000, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it is looked at each second
			if runtime.GOOS != "linux" {
				t.Skip("the system does not tell")
			}
			var got atomic.Int64
			up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				got.Add(1)
				io.Copy(io.Discard, r.Body)
			})
			r := start(t, gateway.Limits{}, public("open"))
			held := func(n int) {
				until(t, fmt.Sprint(n, " held"), func() bool { return r.gateway.Load()["run-open"].Held == n })
			}
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 3)
			for i := range 3 {
				var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
				if c.chunked {
					body = io.MultiReader(body)
				}
				go func() {
					_, err := r.client.Do(r.ask("POST", "http://open.localhost/", body).WithContext(ctx))
					left <- err
				}()
				held(i + 1)
			}
			leave()
			for range 3 {
				if <-left == nil {
					t.Error("answered")
				}
			}
			held(0)
			r.plane.set(public("open", up))
			if res := r.do(r.ask("POST", "http://open.localhost/", strings.NewReader("stays"))); res.StatusCode != 200 || got.Load() != 1 {
				t.Errorf("%d %s; the replica was given %d requests", res.StatusCode, res.body, got.Load())
			}
		})
	}
}

// One that leaves in the middle of its body is noticed, too.
func TestPeer_WhoLeavesInTheMiddle(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell")
	}
	r := start(t, gateway.Limits{}, public("open"))
	conn := r.dial()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: open.localhost\r\nContent-Length: 10\r\n\r\nhalf")
	until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	conn.Close()
	until(t, "it is held no more", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
}

// What came while it waited goes on as it came, and the rest after it.
func TestPeer_BodiesGoOnWhole(t *testing.T) {
	for _, c := range []struct {
		size    int
		chunked bool
	}{{1, false}, {1 << 20, false}, {3_000_000, false}, {1, true}, {64 << 10, true}, {1_000_000, true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, r.ContentLength, " ", r.TransferEncoding, " ")
				got, _ := io.ReadAll(r.Body)
				w.Write(got)
			})
			r := start(t, gateway.Limits{}, public("open", at(closedPort(t), 0)))
			body := bytes.Repeat([]byte("0123456789 "), c.size/11+1)[:c.size]
			var in io.Reader = bytes.NewReader(body)
			length := fmt.Sprint(c.size, " [] ")
			if c.chunked {
				in, length = io.MultiReader(in), "-1 [chunked] "
			}
			done := make(chan reply, 1)
			go func() { done <- r.do(r.ask("POST", "http://open.localhost/", in)) }()
			until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
			r.plane.set(public("open"))
			r.plane.set(public("open", up))
			if got := <-done; got.StatusCode != 200 || got.body != length+string(body) {
				t.Errorf("%d, %d bytes: %.100s", got.StatusCode, len(got.body), got.body)
			}
		})
	}
}

// A body that still comes when there is a replica streams on from there.
func TestPeer_StreamsOn(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
	})
	r := start(t, gateway.Limits{}, public("open"))
	in, out := io.Pipe()
	done := make(chan reply, 1)
	go func() { done <- r.do(r.ask("POST", "http://open.localhost/", in)) }()
	fmt.Fprint(out, "one ")
	until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	fmt.Fprint(out, "two ")
	r.plane.set(public("open", up))
	until(t, "it has a replica", func() bool { return r.gateway.Load()["run-open"].InFlight == 1 })
	fmt.Fprint(out, "three ")
	out.Close()
	if got := <-done; got.StatusCode != 200 || got.body != "one two three " {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}
