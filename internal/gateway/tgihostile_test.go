package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

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
		r := start(t, gateway.Limits{Bodies: 1000}, m)
		for i := range 20 {
			got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"n":2}`)
			if got.StatusCode != 200 || strings.Contains(got.body, `":-`) {
				t.Fatalf("%s tokens, request %d: %d %s", tokens, i, got.StatusCode, got.body)
			}
		}
		until(t, "all is counted", func() bool { return r.gateway.Numbers()[m.Run].Requests == 20 })
		if n := r.gateway.Numbers()[m.Run]; n.TokensIn < 0 || n.TokensOut < 0 {
			t.Errorf("%s tokens: the numbers are %+v", tokens, n)
		}
		if said := r.log.String(); strings.Contains(said, "panic") {
			t.Errorf("%s tokens: %s", tokens, said)
		}
	}
}
