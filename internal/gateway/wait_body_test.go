package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"dstack/internal/gateway"
)

// A body that arrives in part while the request waits is forwarded whole.
func TestHeld_BodiesAreForwardedWhole(t *testing.T) {
	for _, c := range []struct {
		size    int
		chunked bool
	}{{1, false}, {1 << 20, false}, {3_000_000, false}, {1, true}, {64 << 10, true}, {1_000_000, true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, r.ContentLength, " ", r.TransferEncoding, " ")
				got, _ := io.ReadAll(r.Body)
				w.Write(got)
			})
			r := startGateway(t, gateway.Limits{}, publicRoute("open", targetAt(closedPort(t), 0)))
			body := bytes.Repeat([]byte("0123456789 "), c.size/11+1)[:c.size]
			var in io.Reader = bytes.NewReader(body)
			length := fmt.Sprint(c.size, " [] ")
			if c.chunked {
				in, length = io.MultiReader(in), "-1 [chunked] "
			}
			done := make(chan response, 1)
			go func() { done <- r.do(r.newRequest("POST", "http://open.localhost/", in)) }()
			waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
			r.plane.setRoutes(publicRoute("open"))
			r.plane.setRoutes(publicRoute("open", up))
			if got := <-done; got.StatusCode != 200 || got.body != length+string(body) {
				t.Errorf("%d, %d bytes: %.100s", got.StatusCode, len(got.body), got.body)
			}
		})
	}
}

// A body that still arrives when there is a replica streams on.
func TestHeld_UploadGoesOn(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
	})
	r := startGateway(t, gateway.Limits{}, publicRoute("open"))
	in, out := io.Pipe()
	done := make(chan response, 1)
	go func() { done <- r.do(r.newRequest("POST", "http://open.localhost/", in)) }()
	fmt.Fprint(out, "one ")
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	fmt.Fprint(out, "two ")
	r.plane.setRoutes(publicRoute("open", up))
	waitUntil(t, "it has a replica", func() bool { return r.gateway.Load()["run-open"].InFlight == 1 })
	fmt.Fprint(out, "three ")
	out.Close()
	if got := <-done; got.StatusCode != 200 || got.body != "one two three " {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}
