package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"dstack/internal/gateway"
)

// What came while it waited goes on as it came, and the rest after it.
func TestHeld_BodiesGoOnWhole(t *testing.T) {
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
func TestHeld_StreamsOn(t *testing.T) {
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
