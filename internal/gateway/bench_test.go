package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/gateway"
)

func BenchmarkGet(b *testing.B) {
	up := startReplica(b, 0, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1024)) })
	r := startGateway(b, gateway.Limits{}, serviceRoute("llama", up))
	get := func(b *testing.B, address string) {
		for b.Loop() {
			req := r.newRequest("GET", "http://llama.localhost/", nil, withToken(member)...)
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

func BenchmarkModelCall(b *testing.B) {
	up := startReplica(b, 0, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"usage":{"prompt_tokens":5,"completion_tokens":7}}`)
	})
	r := startGateway(b, gateway.Limits{}, modelRoute("llama", "org/m", up))
	body := `{"model":"org/m","messages":[{"role":"user","content":"` + strings.Repeat("hello ", 200) + `"}]}`
	for b.Loop() {
		res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), withToken(member)...))
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
