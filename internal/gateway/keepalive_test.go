package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

const quick = 30 * time.Millisecond // between comments

// starting is a model without a replica.
func starting(format string, ready ...route.Target) route.Route {
	m := model("llama31", "org/m", ready...)
	if format == "tgi" {
		m = tgiRoute("llama31", template(chatml), ready...)
	}
	if len(ready) == 0 {
		m.State = "pulling\nimage 62%"
	}
	return m
}

// stream sends a call whose answer is a stream, and returns it once it has
// begun.
func (r *rig) stream(path, body string, more ...string) (*http.Response, *bufio.Reader) {
	r.t.Helper()
	res, err := r.client.Do(r.ask("POST", "http://gateway.localhost"+path, strings.NewReader(body), append(bearer(member), more...)...))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

const chatStream = `{"model":"org/m","stream":true,"messages":[{"role":"user","content":"a"}]}`

func events(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Late", "1")
	io.WriteString(w, `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}`+"\n\ndata: [DONE]\n\n")
}

func TestComment_UntilThereIsAReplica(t *testing.T) {
	for format, serve := range map[string]http.HandlerFunc{"openai": events, "tgi": (&tgi{}).ServeHTTP} {
		t.Run(format, func(t *testing.T) {
			r := start(t, gateway.Limits{KeepAlive: quick}, starting(format))
			res, in := r.stream("/v1/chat/completions", chatStream)
			if h := res.Header; res.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache" || h.Get("X-Request-Id") == "" {
				t.Errorf("%d %v", res.StatusCode, h)
			}
			for range 3 {
				line, _ := in.ReadString('\n')
				empty, _ := in.ReadString('\n')
				if line != ": waiting for llama31: pulling image 62%\n" || empty != "\n" {
					t.Fatalf("%q %q", line, empty)
				}
			}
			r.plane.set(starting(format, replica(t, 0, serve)))
			rest, err := io.ReadAll(in)
			said := string(rest)
			for strings.HasPrefix(said, ":") {
				_, said, _ = strings.Cut(said, "\n\n")
			}
			if err != nil || !strings.HasPrefix(said, "data: {") || !strings.HasSuffix(said, "data: [DONE]\n\n") || strings.Contains(said, `"error"`) {
				t.Errorf("%v, %s", err, said)
			}
			until(t, "its numbers", func() bool {
				report, _ := r.plane.reported()
				n := report.Runs["run-llama31"]
				return n.Metrics.Requests == 1 && n.Metrics.TokensOut > 0 && n.Metrics.Streams == 1 && n.InFlight == 0
			})
			if all := gathered(t, r.gateway); !strings.Contains(all, "dstack_model_requests_total{code=200,model=org/m,project=main,run=llama31} 1") {
				t.Error(all)
			}
		})
	}
}

func TestComment_NotForOthers(t *testing.T) {
	r := start(t, gateway.Limits{KeepAlive: time.Millisecond, HoldTimeout: 5 * quick}, starting("openai"), public("open"))
	for name, got := range map[string]reply{
		"no stream":     r.chat(`{"model":"org/m","messages":[{"stream":true}]}`),
		"stream: false": r.chat(`{"model":"org/m","stream":true,"stream":false}`),
		"embeddings":    r.do(r.ask("POST", "http://gateway.localhost/v1/embeddings", strings.NewReader(chatStream), bearer(member)...)),
		"a service":     r.do(r.ask("POST", "http://open.localhost/v1/chat/completions", strings.NewReader(chatStream))),
	} {
		if got.StatusCode != 503 || strings.HasPrefix(got.body, ":") {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	patient := start(t, gateway.Limits{HoldTimeout: quick}, starting("openai"))
	if got := patient.chat(chatStream); got.StatusCode != 503 {
		t.Errorf("who does not wait long: %d %s", got.StatusCode, got.body)
	}
}

// breaks closes its connection after some bytes.
func breaks(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, begin)
	}
}

func status(code int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func TestComment_ErrorsAreEvents(t *testing.T) {
	const sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	ends := starting("openai")
	ends.IsStopping = true
	refuses := at(closedPort(t), 0)
	for _, c := range []struct {
		name   string
		next   route.Route // what comes after the first comment
		path   string
		status string // that is counted
		want   string
	}{
		{"nothing comes", starting("openai"), "/v1/chat/completions", "", `"type":"server_error","param":null,"code":"service_unavailable"`},
		{"it is stopped", ends, "/v1/chat/completions", "", "llama31 is being stopped"},
		{"it is gone", route.Route{}, "/v1/chat/completions", "", `"code":"model_not_found"`},
		{"it refuses connections", starting("openai", refuses), "/v1/chat/completions", "502", "accepts no connections"},
		{"another status", starting("openai", replica(t, 0, status(400, "application/json", `{"error":{"message":"too many tokens","type":"x"}}`))), "/v1/chat/completions", "400", "too many tokens"},
		{"a plain error", starting("openai", replica(t, 0, status(500, "text/plain", `oh no`))), "/v1/chat/completions", "500", "it answered with status 500"},
		{"a redirect", starting("openai", replica(t, 0, status(302, "text/plain", ``))), "/v1/chat/completions", "502", "answered with status 302"},
		{"no stream", starting("openai", replica(t, 0, status(200, "application/json", `{"choices":[]}`))), "/v1/chat/completions", "502", "did not answer with a stream"},
		{"no answer", starting("openai", replica(t, 0, breaks(""))), "/v1/chat/completions", "502", "gave no proper answer"},
		{"no first byte", starting("openai", replica(t, 0, breaks(sse))), "/v1/chat/completions", "502", "broke off before it said anything"},
		{"an empty stream", starting("openai", replica(t, 0, breaks(sse+"0\r\n\r\n"))), "/v1/chat/completions", "502", "broke off before it said anything"},
		{"tgi: another status", starting("tgi", replica(t, 0, status(422, "application/json", `{"error":"too many tokens","error_type":"validation"}`))), "/v1/chat/completions", "422", "too many tokens"},
		{"tgi: no answer", starting("tgi", replica(t, 0, breaks(""))), "/v1/chat/completions", "502", "gave no proper answer"},
		{"anthropic: another status", starting("openai", replica(t, 0, status(400, "application/json", `{"error":{"message":"too many tokens","type":"x"}}`))), "/v1/messages", "400", `"type":"error","error":{"type":"invalid_request_error"`},
		{"anthropic: nothing comes", starting("openai"), "/v1/messages", "", `"type":"error","error":{"type":"overloaded_error"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := gateway.Limits{KeepAlive: 5 * time.Millisecond, RefusedTimeout: time.Millisecond}
			if len(c.next.Ready) == 0 && !c.next.IsStopping {
				limits.HoldTimeout = 2 * quick
			}
			r := start(t, limits, starting("openai"))
			_, in := r.stream(c.path, chatStream)
			if line, err := in.ReadString('\n'); !strings.HasPrefix(line, ": waiting for llama31") {
				t.Fatal(line, err)
			}
			r.plane.set(c.next)
			rest, err := io.ReadAll(in)
			said := "\n" + string(rest)
			begin, end := "\n\ndata: {\"error\":{", "}\n\ndata: [DONE]\n\n"
			if c.path == "/v1/messages" {
				begin, end = "\n\nevent: error\ndata: {", "}\n\n"
			}
			at := strings.Index(said, begin)
			if err != nil || at < 0 || !strings.HasSuffix(said, end) || !strings.Contains(said, c.want) || strings.Contains(said[at+3:], "\n:") {
				t.Errorf("%v, said %s", err, said)
			}
			if c.status != "" {
				until(t, "it is counted", func() bool {
					return strings.Contains(gathered(t, r.gateway), "dstack_model_requests_total{code="+c.status+",")
				})
			}
		})
	}
}

func TestComment_WhoLeavesFreesThePlace(t *testing.T) {
	r := start(t, gateway.Limits{KeepAlive: quick}, starting("openai"))
	ctx, leave := context.WithCancel(t.Context())
	res, err := r.client.Do(r.ask("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(chatStream), bearer(member)...).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n := r.gateway.Load()["run-llama31"].Held; n != 1 {
		t.Errorf("%d held", n)
	}
	leave()
	until(t, "its place", func() bool { return r.gateway.Load()["run-llama31"].Held == 0 })
}

// A stream that breaks later is cut short for the client, as without comments.
func TestComment_StreamThatBreaksLater(t *testing.T) {
	r := start(t, gateway.Limits{KeepAlive: quick}, starting("openai"))
	_, in := r.stream("/v1/chat/completions", chatStream)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.plane.set(starting("openai", replica(t, 0, breaks("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"))))
	rest, err := io.ReadAll(in)
	if err == nil || !strings.HasSuffix(string(rest), "data: 1\n\n") {
		t.Errorf("%v, %q", err, rest)
	}
	if _, timeout := err.(net.Error); timeout {
		t.Error(err)
	}
}

func TestComment_StateIsCut(t *testing.T) {
	long := starting("openai")
	long.State = dstack.Reason("a" + strings.Repeat("é", 500)) // a letter goes across the cut
	r := start(t, gateway.Limits{KeepAlive: quick}, long)
	_, in := r.stream("/v1/chat/completions", chatStream)
	line, _ := in.ReadString('\n')
	if state := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), ": waiting for llama31: "); len(state) > 200 || len(state) < 198 || strings.Contains(state, "\ufffd") {
		t.Errorf("%d bytes: %s", len(state), state)
	}
}
