package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// unevenReplica fails the first choice, and never ends the others.
type unevenReplica struct {
	requests, cancelled atomic.Int64
	first               http.HandlerFunc
}

func (u *unevenReplica) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if u.requests.Add(1) == 1 {
		u.first(w, r)
		return
	}
	if r.URL.Path == "/generate_stream" {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
	}
	select {
	case <-r.Context().Done():
		u.cancelled.Add(1)
	case <-time.After(8 * time.Second):
	}
}

// When one choice fails, the others are cancelled, in the replica too.
func TestTGI_OneChoiceFails(t *testing.T) {
	overloaded := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error":"Model is overloaded","error_type":"overloaded"}`)
	}
	inStream := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `data:{"error":"Model is overloaded","error_type":"overloaded"}`+"\n\n")
	}
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name, more string
		first      http.HandlerFunc
		status     int
		message    string
	}{
		{"an answer", ``, overloaded, 429, "Model is overloaded"},
		{"a stream that does not begin", `,"stream":true`, overloaded, 429, "Model is overloaded"},
		{"a stream that begins with an error", `,"stream":true`, inStream, 429, "Model is overloaded"},
		{"a connection that breaks", ``, broken, 502, "did not send a valid response"},
	} {
		u := &unevenReplica{first: c.first}
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, u.ServeHTTP)))
		began := time.Now()
		got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":3` + c.more + `}`)
		if got.StatusCode != c.status || !strings.Contains(got.body, c.message) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
		waitUntil(t, c.name+": the others are cancelled", func() bool { return u.cancelled.Load() == u.requests.Load()-1 })
	}
}

// A client that leaves while its prompt is rendered is counted as such.
func TestTGI_DisconnectBeforeThePrompt(t *testing.T) {
	slow := "{% for a in range(999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(slow), startReplica(t, 0, serveGenerated("1"))))
	client := *r.client
	client.Timeout = 5 * time.Millisecond // less than rendering takes until it fails
	waitUntil(t, "a request is counted", func() bool {
		res, err := client.Do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"org/m","messages":[{"role":"user","content":"a"}]}`), withToken(member)...))
		if err == nil {
			res.Body.Close()
		}
		return strings.Contains(gatherMetrics(t, r.gateway), "code=499")
	})
}

// A prompt's tokens are counted once, however many choices it has.
func TestTGI_PromptsAreCountedOnce(t *testing.T) {
	var counted atomic.Int64
	inner := &tgi{}
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			counted.Add(1)
			_, _ = io.WriteString(w, `[{"id":1},{"id":2},{"id":3}]`)
			return
		}
		inner.ServeHTTP(w, r)
	})
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), up))
	got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions",
		strings.NewReader(`{"model":"org/m","prompt":["a","b"],"n":3,"stream":true,"stream_options":{"include_usage":true}}`), withToken(member)...))
	// A choice that ends before /tokenize responds may have a count of its own: 7.
	if got.StatusCode != 200 || !strings.Contains(got.body, `"usage":{"prompt_tokens":`) || counted.Load() != 2 {
		t.Errorf("%d, counted %d times: %s", got.StatusCode, counted.Load(), got.body)
	}
}
