package gateway_test

import (
	"io"
	"net/http"
	"strings"
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

func BenchmarkModelCall(b *testing.B) {
	up := replica(b, 0, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"usage":{"prompt_tokens":5,"completion_tokens":7}}`)
	})
	r := start(b, gateway.Limits{}, model("llama", "org/m", up))
	body := `{"model":"org/m","messages":[{"role":"user","content":"` + strings.Repeat("hello ", 200) + `"}]}`
	for b.Loop() {
		res, err := r.client.Do(r.ask("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), bearer(member)...))
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
