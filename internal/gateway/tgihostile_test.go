package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/gateway"
)

// serveGenerated responds with a number of tokens, as the text given.
func serveGenerated(tokens string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":%s,"input_length":%s,"prefill":[],"tokens":[]}}`, tokens, tokens)
	}
}

// Whatever token counts a replica reports, a request releases what it reserved of
// the body budget.
func TestTGI_ImpossibleTokenCounts(t *testing.T) {
	for _, tokens := range []string{"-5", "9223372036854775807"} {
		m := tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, serveGenerated(tokens)))
		r := startGateway(t, gateway.Limits{BodyBytes: 1000}, m)
		for i := range 20 {
			got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":2}`)
			if got.StatusCode != 200 || strings.Contains(got.body, `":-`) {
				t.Fatalf("%s tokens, request %d: %d %s", tokens, i, got.StatusCode, got.body)
			}
		}
		waitUntil(t, "all is counted", func() bool { return r.metrics(m.Run).Requests == 20 })
		if n := r.metrics(m.Run); n.TokensIn < 0 || n.TokensOut < 0 {
			t.Errorf("%s tokens: the metrics are %+v", tokens, n)
		}
		if said := r.log.String(); strings.Contains(said, "panic") {
			t.Errorf("%s tokens: %s", tokens, said)
		}
	}
}

// Each choice has its own copy of the prompt, which counts like a body.
func TestTGI_PromptsUseTheBodyBudget(t *testing.T) {
	m := tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, serveGenerated("1")))
	r := startGateway(t, gateway.Limits{MaxBody: 1 << 20, BodyBytes: 2 << 20}, m)
	ask := func(n int) response {
		return r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions",
			strings.NewReader(fmt.Sprintf(`{"model":"org/m","prompt":%q,"n":%d}`, strings.Repeat("a", 200<<10), n)), withToken(member)...))
	}
	for range 20 {
		if got := ask(4); got.StatusCode != 200 {
			t.Fatalf("4 choices: %d %s", got.StatusCode, got.body)
		}
	}
	if got := ask(16); got.StatusCode != 413 || !strings.Contains(got.body, `"param":"n"`) || !strings.Contains(got.body, "fewer choices") {
		t.Errorf("16 choices: %d %s", got.StatusCode, got.body)
	}
}

// One limit applies to the answers of all choices together.
func TestTGI_LimitOfAllAnswers(t *testing.T) {
	text := strings.Repeat("a", 9<<20)
	m := tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"generated_text":"%s","details":{"finish_reason":"length","generated_tokens":1}}`, text)
	}))
	r := startGateway(t, gateway.Limits{}, m)
	if got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":4}`); got.StatusCode != 502 {
		t.Errorf("four times 9 MiB: %d, %d bytes", got.StatusCode, len(got.body))
	}
}

// Anthropic's clients get an error of their form, because TGI has no messages.
func TestTGI_AnthropicErrors(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, serveGenerated("1"))))
	got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/messages", strings.NewReader(`{"model":"org/m","messages":[]}`), withToken(member)...))
	if got.StatusCode != 404 || !strings.HasPrefix(got.body, `{"type":"error","error":{"type":"not_found_error"`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// Parsing a body takes many times its size: a body that TGI would not accept
// anyway is refused before.
func TestTGI_LargeBodies(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, serveGenerated("1"))))
	began := time.Now()
	got := r.sendChat(`{"model":"org/m","messages":[` + strings.Repeat("0,", 8<<20) + `0]}`)
	if got.StatusCode != 413 || !strings.Contains(got.body, "larger than 8MB") {
		t.Errorf("%d %s after %s", got.StatusCode, got.body, time.Since(began))
	}
}

// Many small values take far more memory than the body, which the body budget
// counts while they are parsed.
func TestTGI_ValuesUseTheBodyBudget(t *testing.T) {
	r := startGateway(t, gateway.Limits{MaxBody: 4 << 20, BodyBytes: 16 << 20}, tgiRoute("m", chatTemplate(chatml), startReplica(t, 0, (&tgi{}).ServeHTTP)))
	text := strings.Repeat("a word, ", 1<<15)
	for range 3 {
		got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}],"stop":[` + strings.Repeat("0,", 1<<19) + `0]}`)
		if got.StatusCode != 503 || !strings.Contains(got.body, "too many large requests") {
			t.Fatalf("half a million numbers: %d %.200s", got.StatusCode, got.body)
		}
		got = r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"` + text + `"}]}`)
		if got.StatusCode != 200 {
			t.Fatalf("a long text, after it: %d %.200s", got.StatusCode, got.body)
		}
	}
}
