package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"dstack/internal/openai"
)

// FuzzReadTGI checks that no call causes a panic, an invalid body, or an error
// that cannot be sent to a client.
func FuzzReadTGI(f *testing.F) {
	for _, seed := range []string{
		`{` + hi + `,"n":2,"seed":1,"stop":["a","b"],"tools":[{"type":"function"}],"logprobs":true,"top_logprobs":2}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}]}`,
		`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{}}}}}`,
		`{"prompt":["a","b"],"echo":true,"best_of":1}`, `{"prompt":[1,[2]]}`, `{"messages":[ {"role" : "user", "content" : null } ]}`,
		`{"stop": [null], "logit_bias": {}, "temperature": 1e400}`, `{}`, "{\"\xff\":\"\xff\"}", `{"messages":[{"role":"\ud800","content":"\ud800"}]}`,
	} {
		f.Add([]byte(seed))
	}
	m := llama()
	m.Prompt = func(vars json.RawMessage) (string, error) {
		if !json.Valid(vars) {
			panic("the variables are no JSON")
		}
		return "p", nil
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, call := range []openai.Call{chatCall, textCall} {
			r, err := openai.ReadTGI(call, body, m, 0)
			if err != nil {
				p, ok := errors.AsType[*openai.Problem](err)
				if !ok || p.Status != 400 || p.Message == "" {
					t.Fatalf("%q: %v", body, err)
				}
				continue
			}
			if n := r.Choices(); n < 1 || n > 128 || !json.Valid(r.Body(0)) || !json.Valid(r.Body(n-1)) {
				t.Fatalf("%q: %d choices, %s", body, n, r.Body(0))
			}
		}
	})
}

// FuzzFeed checks that any input gives whole events of bounded size, however
// it is cut.
func FuzzFeed(f *testing.F) {
	for _, seed := range []string{
		piece("a") + last(piece("END"), "length", 2), "\ufeffdata:\r\rdata: {}\n\n", "data:[DONE]\n\n", piece("\ufffd") + special("x"),
		`data:{"error":"x"}` + "\n\n", "data:{\"token\":{\"text\":\"EN\"},\"top_tokens\":[{}],\ndata:\"details\":{}}\n\n", ":\n\n",
	} {
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, upstream []byte, cut int) {
		run := func(pieces ...[]byte) (string, string) {
			var out bytes.Buffer
			s := chatStream(t, `,"logprobs":true,"top_logprobs":1,"stop":["END"]`).Stream(&out)
			for _, p := range pieces {
				if s.Feed(0, p) != nil {
					break
				}
			}
			err := s.End(0)
			if err == nil {
				return out.String(), ""
			}
			return out.String(), err.Error()
		}
		whole, err := run(upstream)
		at := min(max(cut, 0), len(upstream))
		if again, errAgain := run(upstream[:at], upstream[at:]); again != whole || errAgain != err {
			t.Fatalf("cut at %d: got %q, %s; whole %q, %s", at, again, errAgain, whole, err)
		}
		if len(whole) > 4096+2048*len(upstream) || !utf8.ValidString(whole) {
			t.Fatalf("%d bytes of %d", len(whole), len(upstream))
		}
		if whole != "" && !strings.HasSuffix(whole, "\n\n") {
			t.Fatalf("the last event is not whole: %q", whole)
		}
		if (err == "") != strings.HasSuffix(whole, done) {
			t.Fatalf("%s: %q", err, whole)
		}
		events := strings.Replace(strings.TrimSuffix(whole, done), "event: error\n", "", 1)
		deltas(t, events+done, 1)
	})
}

// FuzzAnswer checks that any response gives an answer or a problem.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{tgi1, tgi2, tgi3, `{"generated_text":"","details":{"tokens":[{}],"top_tokens":[[{}]],"finish_reason":"x","prefill":[null]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, call := range []openai.Call{chatCall, textCall} {
			logprobs := map[string]string{chatCall.Path: "true", textCall.Path: "1"}[call.Path]
			r := mustRead(t, call, `{"prompt":"p",`+hi+`,"logprobs":`+logprobs+`}`, llama())
			answer, _, err := r.Answer([]openai.TGIReply{{Body: body}})
			if (err == nil) != json.Valid(answer) {
				t.Fatalf("%q: %s, %v", body, answer, err)
			}
		}
	})
}
