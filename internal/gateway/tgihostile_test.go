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

// generates is a replica whose answers say how many tokens they have.
func generates(tokens string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":%s,"input_length":%s,"prefill":[],"tokens":[]}}`, tokens, tokens)
	}
}

// A replica's numbers are its own. Whatever they are, a request gives back
// what it took of the room that all share.
func TestTGI_NumbersThatCannotBe(t *testing.T) {
	for _, tokens := range []string{"-5", "9223372036854775807"} {
		m := tgiRoute("m", template(chatml), replica(t, 0, generates(tokens)))
		r := start(t, gateway.Limits{BodyBytes: 1000}, m)
		for i := range 20 {
			got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":2}`)
			if got.StatusCode != 200 || strings.Contains(got.body, `":-`) {
				t.Fatalf("%s tokens, request %d: %d %s", tokens, i, got.StatusCode, got.body)
			}
		}
		until(t, "all is counted", func() bool { return r.metrics(m.Run).Requests == 20 })
		if n := r.metrics(m.Run); n.TokensIn < 0 || n.TokensOut < 0 {
			t.Errorf("%s tokens: the numbers are %+v", tokens, n)
		}
		if said := r.log.String(); strings.Contains(said, "panic") {
			t.Errorf("%s tokens: %s", tokens, said)
		}
	}
}

// Each choice has its own copy of the prompt: they are bounded like a body.
func TestTGI_PromptsTakeRoom(t *testing.T) {
	m := tgiRoute("m", template(chatml), replica(t, 0, generates("1")))
	r := start(t, gateway.Limits{MaxBody: 1 << 20, BodyBytes: 2 << 20}, m)
	ask := func(n int) reply {
		return r.do(r.ask("POST", "http://gateway.localhost/v1/completions",
			strings.NewReader(fmt.Sprintf(`{"model":"org/m","prompt":%q,"n":%d}`, strings.Repeat("a", 200<<10), n)), bearer(member)...))
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

// The answers to all choices are bounded together.
func TestTGI_AnswersTogether(t *testing.T) {
	text := strings.Repeat("a", 9<<20)
	m := tgiRoute("m", template(chatml), replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"generated_text":"%s","details":{"finish_reason":"length","generated_tokens":1}}`, text)
	}))
	r := start(t, gateway.Limits{}, m)
	if got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":4}`); got.StatusCode != 502 {
		t.Errorf("four times 9 MiB: %d, %d bytes", got.StatusCode, len(got.body))
	}
}

// Anthropic's clients are told in their own way that TGI has no messages.
func TestTGI_AnthropicErrors(t *testing.T) {
	r := start(t, gateway.Limits{}, tgiRoute("m", template(chatml), replica(t, 0, generates("1"))))
	got := r.do(r.ask("POST", "http://gateway.localhost/v1/messages", strings.NewReader(`{"model":"org/m","messages":[]}`), bearer(member)...))
	if got.StatusCode != 404 || !strings.HasPrefix(got.body, `{"type":"error","error":{"type":"not_found_error"`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// A body is read into many times its size: one that TGI would not take anyway
// is refused before.
func TestTGI_LargeBodies(t *testing.T) {
	r := start(t, gateway.Limits{}, tgiRoute("m", template(chatml), replica(t, 0, generates("1"))))
	began := time.Now()
	got := r.chat(`{"model":"org/m","messages":[` + strings.Repeat("0,", 8<<20) + `0]}`)
	if got.StatusCode != 413 || !strings.Contains(got.body, "larger than 8 MiB") {
		t.Errorf("%d %s after %s", got.StatusCode, got.body, time.Since(began))
	}
}

// Many small values take far more memory than the body that they come in.
// That is in the room for bodies, while they are read.
func TestTGI_ManyValuesTakeRoom(t *testing.T) {
	r := start(t, gateway.Limits{MaxBody: 4 << 20, BodyBytes: 16 << 20}, tgiRoute("m", template(chatml), replica(t, 0, (&tgi{}).ServeHTTP)))
	text := strings.Repeat("a word, ", 1<<15)
	for range 3 {
		got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}],"stop":[` + strings.Repeat("0,", 1<<19) + `0]}`)
		if got.StatusCode != 503 || !strings.Contains(got.body, "too many large requests") {
			t.Fatalf("half a million numbers: %d %.200s", got.StatusCode, got.body)
		}
		got = r.chat(`{"model":"org/m","messages":[{"role":"user","content":"` + text + `"}]}`)
		if got.StatusCode != 200 {
			t.Fatalf("a long text, after it: %d %.200s", got.StatusCode, got.body)
		}
	}
}
