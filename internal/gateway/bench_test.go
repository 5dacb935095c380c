package gateway_test

import (
	"io"
	"net/http"
	"testing"

	"dstack/internal/gateway"
)

func BenchmarkGet(b *testing.B) {
	up := replica(b, 0, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1024)) })
	r := start(b, gateway.Limits{}, service("llama", up))
	get := func(b *testing.B, address string) {
		for b.Loop() {
			req := r.ask("GET", "http://llama.localhost/", nil, bearer(member)...)
			req.URL.Host = address
			res, err := r.client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				b.Fatal(res.Status)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { get(b, up.Address) })
	b.Run("gateway", func(b *testing.B) { get(b, r.server.Listener.Addr().String()) })
}
