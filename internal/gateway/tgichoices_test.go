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

// uneven is a replica that fails the first choice, and never ends the others.
type uneven struct {
	asked, left atomic.Int64
	first       http.HandlerFunc
}

func (u *uneven) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if u.asked.Add(1) == 1 {
		u.first(w, r)
		return
	}
	if r.URL.Path == "/generate_stream" {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
	}
	select {
	case <-r.Context().Done():
		u.left.Add(1)
	case <-time.After(8 * time.Second):
	}
}

// When one choice fails, nobody waits for the others, in the replica neither.
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
		says       string
	}{
		{"an answer", ``, overloaded, 429, "Model is overloaded"},
		{"a stream that does not begin", `,"stream":true`, overloaded, 429, "Model is overloaded"},
		{"a stream that begins with an error", `,"stream":true`, inStream, 429, "Model is overloaded"},
		{"a connection that breaks", ``, broken, 502, "gave no proper answer"},
	} {
		u := &uneven{first: c.first}
		r := start(t, gateway.Limits{}, tgiRoute("m", template(chatml), replica(t, 0, u.ServeHTTP)))
		began := time.Now()
		got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":3` + c.more + `}`)
		if got.StatusCode != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
		until(t, c.name+": the others are left", func() bool { return u.left.Load() == u.asked.Load()-1 })
	}
}

// A client that leaves while its prompt is made is counted as one that left.
func TestTGI_LeavingBeforeThePrompt(t *testing.T) {
	slow := "{% for a in range(999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
	r := start(t, gateway.Limits{}, tgiRoute("m", template(slow), replica(t, 0, generates("1"))))
	client := *r.client
	client.Timeout = 20 * time.Millisecond
	for range 3 { // a loaded machine may answer before the client leaves
		res, err := client.Do(r.ask("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"org/m","messages":[{"role":"user","content":"a"}]}`), bearer(member)...))
		if err == nil {
			res.Body.Close()
		}
	}
	until(t, "it is counted", func() bool { return strings.Contains(gathered(t, r.gateway), "code=499") })
}

// A prompt's tokens are counted once, however many choices it has.
func TestTGI_PromptsAreCountedOnce(t *testing.T) {
	var counted atomic.Int64
	inner := &tgi{}
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			counted.Add(1)
			_, _ = io.WriteString(w, `[{"id":1},{"id":2},{"id":3}]`)
			return
		}
		inner.ServeHTTP(w, r)
	})
	r := start(t, gateway.Limits{}, tgiRoute("m", template(chatml), up))
	got := r.do(r.ask("POST", "http://gateway.localhost/v1/completions",
		strings.NewReader(`{"model":"org/m","prompt":["a","b"],"n":3,"stream":true,"stream_options":{"include_usage":true}}`), bearer(member)...))
	// A choice that ends before its prompt is counted may tell it by itself: 7.
	if got.StatusCode != 200 || !strings.Contains(got.body, `"usage":{"prompt_tokens":`) || counted.Load() != 2 {
		t.Errorf("%d, counted %d times: %s", got.StatusCode, counted.Load(), got.body)
	}
}
