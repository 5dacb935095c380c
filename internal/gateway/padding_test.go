package gateway_test

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

const chatWhole = `{"model":"org/m","messages":[{"role":"user","content":"a"}]}`

// soon are limits with which newlines come quickly.
var soon = gateway.Limits{NewlineAfter: quick, NewlineInterval: 5 * time.Millisecond}

// serveAfterNewlines answers once the test has seen newlines.
func serveAfterNewlines(seen <-chan struct{}, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-seen:
			serve(w, r)
		case <-r.Context().Done():
		}
	}
}

// readNewlines reads three newlines of a response.
func readNewlines(t *testing.T, in io.Reader) {
	t.Helper()
	begin := make([]byte, 3)
	if _, err := io.ReadFull(in, begin); err != nil || string(begin) != "\n\n\n" {
		t.Fatalf("the response begins with %q, %v", begin, err)
	}
}

func TestPadding_WhileTheReplicaWorks(t *testing.T) {
	const answer = `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}`
	zipped := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, answer)
		z.Close()
	}
	for name, serve := range map[string]http.HandlerFunc{"json": serveStatus(200, "application/json", answer), "gzip": zipped} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			r := startGateway(t, soon, modelRoute("llama31", "org/m", startReplica(t, 0, serveAfterNewlines(seen, serve))))
			res, in := r.openStream("/v1/chat/completions", chatWhole, "Accept-Encoding", "gzip")
			if h := res.Header; res.StatusCode != 200 || h.Get("Content-Type") != "application/json" || h.Get("X-Request-Id") == "" ||
				h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Content-Encoding") != "" {
				t.Errorf("%d %v", res.StatusCode, h)
			}
			readNewlines(t, in)
			close(seen)
			rest, err := io.ReadAll(in)
			if err != nil || strings.TrimLeft(string(rest), "\n") != answer {
				t.Errorf("%v, %s", err, rest)
			}
			waitUntil(t, "its metrics", func() bool {
				n := r.metrics("run-llama31")
				return n.Requests == 1 && n.TokensOut == 5
			})
		})
	}
}

func TestPadding_WhileItWaits(t *testing.T) {
	for format, serve := range map[string]http.HandlerFunc{
		"openai": serveStatus(200, "application/json", `{"choices":[]}`), "tgi": (&tgi{}).ServeHTTP} {
		t.Run(format, func(t *testing.T) {
			r := startGateway(t, soon, startingModel(format))
			_, in := r.openStream("/v1/chat/completions", chatWhole)
			readNewlines(t, in)
			encodings := make(chan []string, 1)
			r.plane.setRoutes(startingModel(format, startReplica(t, 0, func(w http.ResponseWriter, req *http.Request) {
				encodings <- req.Header["Accept-Encoding"]
				serve(w, req)
			})))
			rest, err := io.ReadAll(in)
			if said := strings.TrimLeft(string(rest), "\n"); err != nil || !strings.HasPrefix(said, "{") || !strings.Contains(said, `"choices":[`) {
				t.Errorf("%v, %s", err, rest)
			}
			if got := <-encodings; len(got) > 0 {
				t.Errorf("the replica is asked for the encodings %q", got)
			}
		})
	}
}

func TestPadding_NotEarlier(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(quick)
		serveStatus(200, "application/json", `{}`)(w, r)
	}
	r := startGateway(t, gateway.Limits{NewlineAfter: time.Minute}, modelRoute("llama31", "org/m", startReplica(t, 0, slow)))
	if got := r.sendChat(chatWhole); got.body != "{}" || got.ContentLength != 2 {
		t.Errorf("%q, %d bytes", got.body, got.ContentLength)
	}
}

func TestPadding_OnlyForJSON(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(3 * quick)
		serveStatus(200, "audio/mpeg", "sound")(w, r)
	}
	r := startGateway(t, soon, modelRoute("llama31", "org/m", startReplica(t, 0, slow)), publicRoute("open", startReplica(t, 0, slow)))
	for name, url := range map[string]string{
		"speech": "http://gateway.localhost/v1/audio/speech", "a form": "http://gateway.localhost/v1/images/edits",
		"a stream": "http://gateway.localhost/v1/chat/completions", "a service": "http://open.localhost/v1/chat/completions",
	} {
		if got := r.do(r.newRequest("POST", url, strings.NewReader(chatStream), withToken(member)...)); got.body != "sound" {
			t.Errorf("%s: %q", name, got.body)
		}
	}
}

// TestPadding_ErrorsAreCut: clients take an error with status 200 for an answer
// without content, but report a connection that is cut.
func TestPadding_ErrorsAreCut(t *testing.T) {
	ends := startingModel("openai")
	ends.IsStopping = true
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc // nil: the model waits, and next is the table after newlines
		next  route.Route
		path  string
		code  string // in the metrics
		want  string
	}{
		{"another status", serveStatus(400, "application/json", `{"error":{"message":"too many tokens","type":"x"}}`), route.Route{}, "/v1/chat/completions", "400", "too many tokens"},
		{"no JSON", serveStatus(200, "text/html", `<html>`), route.Route{}, "/v1/chat/completions", "502", "did not answer with JSON"},
		{"no gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			serveStatus(200, "application/json", `{}`)(w, r)
		}, route.Route{}, "/v1/chat/completions", "502", "did not answer with valid gzip"},
		{"another encoding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			serveStatus(200, "application/json", `{}`)(w, r)
		}, route.Route{}, "/v1/chat/completions", "502", "in the encoding `br`"},
		{"no answer", serveBroken(""), route.Route{}, "/v1/chat/completions", "502", "did not send a valid response"},
		{"half an answer", serveBroken("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"a"), route.Route{}, "/v1/chat/completions", "", `{"a`},
		{"it is stopped", nil, ends, "/v1/chat/completions", "", "llama31 is being stopped"},
		{"anthropic", nil, ends, "/v1/messages", "", `"type":"error","error":{"type":"overloaded_error"`},
		{"tgi", nil, startingModel("tgi", startReplica(t, 0, serveStatus(422, "application/json", `{"error":"too many tokens","error_type":"validation"}`))), "/v1/chat/completions", "422", "too many tokens"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := make(chan struct{})
			first := startingModel("openai")
			if c.serve != nil {
				first = startingModel("openai", startReplica(t, 0, serveAfterNewlines(seen, c.serve)))
			}
			r := startGateway(t, soon, first)
			_, in := r.openStream(c.path, chatWhole)
			readNewlines(t, in)
			close(seen)
			if c.serve == nil {
				r.plane.setRoutes(c.next)
			}
			rest, err := io.ReadAll(in)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(string(rest), c.want) || json.Valid(rest) {
				t.Errorf("%v, %s", err, rest)
			}
			if c.code != "" {
				waitUntil(t, "it is counted", func() bool {
					return strings.Contains(gatherMetrics(t, r.gateway), "dstack_model_requests_total{code="+c.code+",")
				})
			}
		})
	}
}

// TestPadding_CompressedAnswersTakeMemory checks that compressed answers, which are kept whole on the fast path, take their memory from
// that for bodies.
func TestPadding_CompressedAnswersTakeMemory(t *testing.T) {
	limits := soon
	limits.MaxBody, limits.BodyBytes = 8<<10, 16<<10
	seen := make(chan struct{})
	r := startGateway(t, limits, modelRoute("llama31", "org/m", startReplica(t, 0, serveAfterNewlines(seen, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 2000 {
			io.WriteString(z, rand.Text()) // it takes half of its length
		}
		z.Close()
	}))))
	_, in := r.openStream("/v1/chat/completions", chatWhole)
	readNewlines(t, in)
	close(seen)
	rest, err := io.ReadAll(in)
	isRefused := errors.Is(err, io.ErrUnexpectedEOF) && strings.Contains(string(rest), "too many large requests")
	if isRefused == isSlowPath { // which passes the answer on as it arrives
		t.Errorf("%v, %.200s", err, rest)
	}
}

func TestPadding_DisconnectEndsTheWait(t *testing.T) {
	r := startGateway(t, soon, startingModel("openai"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := r.client.Do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(chatWhole), withToken(member)...).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	readNewlines(t, res.Body)
	cancel()
	waitUntil(t, "its place", func() bool { return r.gateway.Load()[dstack.RunID("run-llama31")].Held == 0 })
}

// TestPadding_InformationalResponses: those of a replica neither keep the newlines from
// beginning nor end them.
func TestPadding_InformationalResponses(t *testing.T) {
	seen := make(chan struct{})
	r := startGateway(t, soon, modelRoute("llama31", "org/m", startReplica(t, 0, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		isSeen := false
		for end := time.Now().Add(10 * time.Second); !isSeen && time.Now().Before(end); {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			select {
			case <-seen:
				isSeen = true
			case <-time.After(5 * time.Millisecond):
			case <-req.Context().Done():
				return
			}
		}
		w.Header().Del("Link")
		serveStatus(200, "application/json", `{}`)(w, req)
	})))
	res, in := r.openStream("/v1/chat/completions", chatWhole)
	readNewlines(t, in)
	close(seen)
	rest, err := io.ReadAll(in)
	if err != nil || strings.TrimLeft(string(rest), "\n") != "{}" || res.Header.Get("Link") != "" {
		t.Errorf("%v, %s, %v", err, rest, res.Header)
	}
}
