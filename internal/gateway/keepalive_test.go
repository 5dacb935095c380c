package gateway_test

import (
	"bufio"
	"context"
	"errors"
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

// startingModel returns the route of a model without a ready replica.
func startingModel(format string, ready ...route.Target) route.Route {
	m := modelRoute("llama31", "org/m", ready...)
	if format == "tgi" {
		m = tgiRoute("llama31", chatTemplate(chatml), ready...)
	}
	if len(ready) == 0 {
		m.State = "pulling\nimage 62%"
	}
	return m
}

// openStream sends a call whose response is a stream, and returns it once it has
// begun.
func (r *testGateway) openStream(path, body string, more ...string) (*http.Response, *bufio.Reader) {
	r.t.Helper()
	res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost"+path, strings.NewReader(body), append(withToken(member), more...)...))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

const chatStream = `{"model":"org/m","stream":true,"messages":[{"role":"user","content":"a"}]}`

func serveEvents(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Late", "1")
	io.WriteString(w, `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}`+"\n\ndata: [DONE]\n\n")
}

func TestKeepAlive_UntilThereIsAReplica(t *testing.T) {
	for format, serve := range map[string]http.HandlerFunc{"openai": serveEvents, "tgi": (&tgi{}).ServeHTTP} {
		t.Run(format, func(t *testing.T) {
			r := startGateway(t, gateway.Limits{KeepAlive: quick}, startingModel(format))
			res, in := r.openStream("/v1/chat/completions", chatStream)
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
			r.plane.setRoutes(startingModel(format, startReplica(t, 0, serve)))
			rest, err := io.ReadAll(in)
			said := string(rest)
			for strings.HasPrefix(said, ":") {
				_, said, _ = strings.Cut(said, "\n\n")
			}
			if err != nil || !strings.HasPrefix(said, "data: {") || !strings.HasSuffix(said, "data: [DONE]\n\n") || strings.Contains(said, `"error"`) {
				t.Errorf("%v, %s", err, said)
			}
			waitUntil(t, "its metrics", func() bool {
				report, _ := r.plane.lastReport()
				n := report.Runs["run-llama31"]
				return n.Metrics.Requests == 1 && n.Metrics.TokensOut > 0 && n.Metrics.Streams == 1 && n.InFlight == 0
			})
			if all := gatherMetrics(t, r.gateway); !strings.Contains(all, "dstack_model_requests_total{code=200,model=org/m,project=main,run=llama31} 1") {
				t.Error(all)
			}
		})
	}
}

func TestKeepAlive_OnlyForStreams(t *testing.T) {
	r := startGateway(t, gateway.Limits{KeepAlive: time.Millisecond, HoldTimeout: 5 * quick}, startingModel("openai"), publicRoute("open"))
	for name, got := range map[string]response{
		"no stream":     r.sendChat(`{"model":"org/m","messages":[{"stream":true}]}`),
		"stream: false": r.sendChat(`{"model":"org/m","stream":true,"stream":false}`),
		"embeddings":    r.do(r.newRequest("POST", "http://gateway.localhost/v1/embeddings", strings.NewReader(chatStream), withToken(member)...)),
		"a service":     r.do(r.newRequest("POST", "http://open.localhost/v1/chat/completions", strings.NewReader(chatStream))),
	} {
		if got.StatusCode != 503 || strings.HasPrefix(got.body, ":") {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	patient := startGateway(t, gateway.Limits{HoldTimeout: quick}, startingModel("openai"))
	if got := patient.sendChat(chatStream); got.StatusCode != 503 {
		t.Errorf("a short wait: %d %s", got.StatusCode, got.body)
	}
}

// serveBroken closes its connection after some bytes.
func serveBroken(begin string) http.HandlerFunc {
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

func serveStatus(code int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func TestKeepAlive_ErrorsAreEvents(t *testing.T) {
	const sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	ends := startingModel("openai")
	ends.IsStopping = true
	refuses := targetAt(closedPort(t), 0)
	for _, c := range []struct {
		name   string
		next   route.Route // after the first comment
		path   string
		status string // in the metrics
		want   string
	}{
		{"nothing comes", startingModel("openai"), "/v1/chat/completions", "", `"type":"server_error","param":null,"code":"service_unavailable"`},
		{"it is stopped", ends, "/v1/chat/completions", "", "llama31 is being stopped"},
		{"it is gone", route.Route{}, "/v1/chat/completions", "", `"code":"model_not_found"`},
		{"it refuses connections", startingModel("openai", refuses), "/v1/chat/completions", "502", "accepts no connections"},
		{"another status", startingModel("openai", startReplica(t, 0, serveStatus(400, "application/json", `{"error":{"message":"too many tokens","type":"x"}}`))), "/v1/chat/completions", "400", "too many tokens"},
		{"a plain error", startingModel("openai", startReplica(t, 0, serveStatus(500, "text/plain", `oh no`))), "/v1/chat/completions", "500", "it answered with status 500"},
		{"a redirect", startingModel("openai", startReplica(t, 0, serveStatus(302, "text/plain", ``))), "/v1/chat/completions", "502", "answered with status 302"},
		{"no stream", startingModel("openai", startReplica(t, 0, serveStatus(200, "application/json", `{"choices":[]}`))), "/v1/chat/completions", "502", "did not answer with a stream"},
		{"no answer", startingModel("openai", startReplica(t, 0, serveBroken(""))), "/v1/chat/completions", "502", "did not send a valid response"},
		{"no first byte", startingModel("openai", startReplica(t, 0, serveBroken(sse))), "/v1/chat/completions", "502", "closed the connection before sending a response"},
		{"an empty stream", startingModel("openai", startReplica(t, 0, serveBroken(sse+"0\r\n\r\n"))), "/v1/chat/completions", "502", "closed the connection before sending a response"},
		{"tgi: another status", startingModel("tgi", startReplica(t, 0, serveStatus(422, "application/json", `{"error":"too many tokens","error_type":"validation"}`))), "/v1/chat/completions", "422", "too many tokens"},
		{"tgi: no answer", startingModel("tgi", startReplica(t, 0, serveBroken(""))), "/v1/chat/completions", "502", "did not send a valid response"},
		{"anthropic: another status", startingModel("openai", startReplica(t, 0, serveStatus(400, "application/json", `{"error":{"message":"too many tokens","type":"x"}}`))), "/v1/messages", "400", `"type":"error","error":{"type":"invalid_request_error"`},
		{"anthropic: nothing comes", startingModel("openai"), "/v1/messages", "", `"type":"error","error":{"type":"overloaded_error"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := gateway.Limits{KeepAlive: 5 * time.Millisecond, RefusedTimeout: time.Millisecond}
			if len(c.next.Ready) == 0 && !c.next.IsStopping {
				limits.HoldTimeout = 2 * quick
			}
			r := startGateway(t, limits, startingModel("openai"))
			_, in := r.openStream(c.path, chatStream)
			if line, err := in.ReadString('\n'); !strings.HasPrefix(line, ": waiting for llama31") {
				t.Fatal(line, err)
			}
			r.plane.setRoutes(c.next)
			rest, err := io.ReadAll(in)
			said := "\n" + string(rest)
			begin, end := "\n\nevent: error\ndata: {\"error\":{", "}\n\ndata: [DONE]\n\n"
			if c.path == "/v1/messages" {
				begin, end = "\n\nevent: error\ndata: {", "}\n\n"
			}
			at := strings.Index(said, begin)
			if err != nil || at < 0 || !strings.HasSuffix(said, end) || !strings.Contains(said, c.want) || strings.Contains(said[at+3:], "\n:") {
				t.Errorf("%v, said %s", err, said)
			}
			if c.status != "" {
				waitUntil(t, "it is counted", func() bool {
					return strings.Contains(gatherMetrics(t, r.gateway), "dstack_model_requests_total{code="+c.status+",")
				})
			}
		})
	}
}

func TestKeepAlive_DisconnectEndsTheWait(t *testing.T) {
	r := startGateway(t, gateway.Limits{KeepAlive: quick}, startingModel("openai"))
	ctx, cancel := context.WithCancel(t.Context())
	res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(chatStream), withToken(member)...).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n := r.gateway.Load()["run-llama31"].Held; n != 1 {
		t.Errorf("%d held", n)
	}
	cancel()
	waitUntil(t, "its place", func() bool { return r.gateway.Load()["run-llama31"].Held == 0 })
}

// A stream that breaks later is cut short for the client, as without comments.
func TestKeepAlive_StreamThatBreaksLater(t *testing.T) {
	r := startGateway(t, gateway.Limits{KeepAlive: quick}, startingModel("openai"))
	_, in := r.openStream("/v1/chat/completions", chatStream)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.plane.setRoutes(startingModel("openai", startReplica(t, 0, serveBroken("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"))))
	rest, err := io.ReadAll(in)
	if err == nil || !strings.HasSuffix(string(rest), "data: 1\n\n") {
		t.Errorf("%v, %q", err, rest)
	}
	if _, timeout := errors.AsType[net.Error](err); timeout {
		t.Error(err)
	}
}

func TestKeepAlive_ShortensTheState(t *testing.T) {
	long := startingModel("openai")
	long.State = dstack.Reason("a" + strings.Repeat("é", 500)) // a character spans the limit
	r := startGateway(t, gateway.Limits{KeepAlive: quick}, long)
	_, in := r.openStream("/v1/chat/completions", chatStream)
	line, _ := in.ReadString('\n')
	if state := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), ": waiting for llama31: "); len(state) > 200 || len(state) < 198 || strings.Contains(state, "\ufffd") {
		t.Errorf("%d bytes: %s", len(state), state)
	}
}
