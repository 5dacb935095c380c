package openai_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/openai"
)

func reply(body string, header ...string) openai.TGIReply {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return openai.TGIReply{Header: h, Body: []byte(body)}
}

func mustAnswer(t testing.TB, r *openai.TGIRequest, replies ...openai.TGIReply) (string, openai.Usage) {
	t.Helper()
	got, usage, err := r.Answer(replies)
	if err != nil {
		t.Fatal(err)
	}
	return string(got), usage
}

// The same answer in the form of each version of TGI.
const (
	tgi1 = `{"generated_text":" Deep learning</s>","details":{"finish_reason":"stop_sequence","generated_tokens":3,"seed":null,` +
		`"prefill":[{"id":1,"text":"<s>","logprob":null},{"id":2,"text":"hi","logprob":-1.5}],` +
		`"tokens":[{"id":21784,"text":" Deep","logprob":-0.5,"special":false},{"id":5175,"text":" learning","logprob":-0.25,"special":false},{"id":9,"text":"</s>","logprob":-0.125,"special":false}]}}`
	tgi2 = `{"generated_text":" Deep learning","details":{"finish_reason":"eos_token","generated_tokens":3,"seed":7,"prefill":[],` +
		`"tokens":[{"id":21784,"text":" Deep","logprob":-0.5,"special":false},{"id":5175,"text":" learning","logprob":-0.25,"special":false},{"id":2,"text":"</s>","logprob":-0.125,"special":true}],` +
		`"top_tokens":[[{"id":21784,"text":" Deep","logprob":-0.5,"special":false},{"id":3,"text":" A","logprob":-2,"special":false},{"id":4,"text":" tie","logprob":-2,"special":false}],` +
		`[{"id":5175,"text":" learning","logprob":-0.25,"special":false},{"id":8,"text":" é","logprob":null,"special":false}],[]]}}`
	tgi3 = `{"generated_text":" Deep learning","details":{"finish_reason":"eos_token","generated_tokens":3,"seed":7,"input_length":2,"prefill":[],` +
		`"tokens":[{"id":21784,"text":" Deep","logprob":-0.5,"special":false},{"id":5175,"text":" learning","logprob":-0.25,"special":false},{"id":2,"text":"</s>","logprob":-0.125,"special":true}]}}`
)

func TestAnswer_EachVersion(t *testing.T) {
	const want = `{"id":"id-1","object":"chat.completion","created":1700000000,"model":"org/llama","system_fingerprint":FP,` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":" Deep learning","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}`
	cases := []struct {
		name        string
		reply       openai.TGIReply
		fingerprint string
	}{
		{"1", reply(tgi1), `null`},
		{"2", reply(tgi2, "x-prompt-tokens", "2"), `"fp_7"`},
		{"3", reply(tgi3), `"fp_7"`},
		{"3, and the header counts", reply(strings.Replace(tgi3, `"input_length":2`, `"input_length":9`, 1), "x-prompt-tokens", "2"), `"fp_7"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, usage := mustAnswer(t, mustRead(t, chatCall, `{`+hi+`}`, llama()), c.reply)
			if want := strings.Replace(want, "FP", c.fingerprint, 1); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if usage != (openai.Usage{Prompt: 2, Completion: 3, Total: 5, Counted: true}) {
				t.Errorf("usage %+v", usage)
			}
		})
	}
}

func TestAnswer_TextCall(t *testing.T) {
	r := mustRead(t, textCall, `{"prompt":"hi","echo":true,"seed":5}`, llama())
	got, _ := mustAnswer(t, r, reply(tgi3))
	want := `{"id":"id-1","object":"text_completion","created":1700000000,"model":"org/llama","system_fingerprint":"fp_5",` +
		`"choices":[{"index":0,"text":"hi Deep learning","logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnswer_Logprobs(t *testing.T) {
	chat, _ := mustAnswer(t, mustRead(t, chatCall, `{`+hi+`,"logprobs":true,"top_logprobs":2}`, llama()), reply(tgi2))
	if want := `"logprobs":{"content":[` +
		`{"token":" Deep","logprob":-0.5,"bytes":[32,68,101,101,112],"top_logprobs":[{"token":" Deep","logprob":-0.5,"bytes":[32,68,101,101,112]},{"token":" A","logprob":-2,"bytes":[32,65]}]},` +
		`{"token":" learning","logprob":-0.25,"bytes":[32,108,101,97,114,110,105,110,103],"top_logprobs":[{"token":" learning","logprob":-0.25,"bytes":[32,108,101,97,114,110,105,110,103]},{"token":" é","logprob":-9999,"bytes":[32,195,169]}]}` +
		`],"refusal":null},"finish_reason"`; !strings.Contains(chat, want) {
		t.Errorf("got  %s\nwant %s", chat, want)
	}
	none, _ := mustAnswer(t, mustRead(t, chatCall, `{`+hi+`,"logprobs":true}`, llama()), reply(tgi1))
	if want := `{"token":" Deep","logprob":-0.5,"bytes":[32,68,101,101,112],"top_logprobs":[]}`; !strings.Contains(none, want) || strings.Contains(none, "</s>") {
		t.Errorf("got %s", none)
	}
	text, _ := mustAnswer(t, mustRead(t, textCall, `{"prompt":"x","logprobs":2}`, llama()), reply(tgi2))
	if want := `"logprobs":{"tokens":[" Deep"," learning"],"token_logprobs":[-0.5,-0.25],"top_logprobs":[{" A":-2," Deep":-0.5},{" learning":-0.25," é":-9999}],"text_offset":[0,5]}`; !strings.Contains(text, want) {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	zero, _ := mustAnswer(t, mustRead(t, textCall, `{"prompt":"x","logprobs":0}`, llama()), reply(tgi2))
	if want := `"token_logprobs":[-0.5,-0.25],"top_logprobs":null`; !strings.Contains(zero, want) {
		t.Errorf("got  %s\nwant %s", zero, want)
	}
}

func TestAnswer_FinishReasons(t *testing.T) {
	cases := []struct{ name, stop, text, reason, want, why string }{
		{"length", `"x"`, "abc", "length", "abc", "length"},
		{"the model's end", `"x"`, "abc", "eos_token", "abc", "stop"},
		{"the model's end as text", `"x"`, "abc</s>", "eos_token", "abc", "stop"},
		{"a stop text", `"END"`, "abcEND", "stop_sequence", "abc", "stop"},
		{"a stop text and a line feed: TGI stops there too", `"END"`, "abcEND\n", "stop_sequence", "abc", "stop"},
		{"the last token of all completed one", `"END"`, "abcEND", "length", "abc", "stop"},
		{"inside of a token, where TGI does not see it", `"END"`, "abcENDs and more", "length", "abc", "stop"},
		{"its beginning only", `"END"`, "abcEN", "length", "abcEN", "length"},
		{"the one that ends first", `["bc","abcd"]`, "xabcd", "stop_sequence", "xa", "stop"},
		{"of those that end together the longest", `["bc","abc"]`, "xabc", "stop_sequence", "x", "stop"},
		{"a special one that is no text", `"<|im_end|>"`, "abc", "stop_sequence", "abc", "stop"},
		{"nothing", `"x"`, "", "eos_token", "", "stop"},
		{"only a stop text", `"x"`, "x", "stop_sequence", "", "stop"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			body, _ := json.Marshal(map[string]any{"generated_text": c.text, "details": map[string]any{"finish_reason": c.reason, "generated_tokens": 1}})
			got, _ := mustAnswer(t, mustRead(t, chatCall, `{`+hi+`,"stop":`+c.stop+`}`, llama()), reply(string(body)))
			text, why := readChat(t, got)
			if text[0] != c.want || why[0] != c.why {
				t.Errorf("got %q, %s; want %q, %s", text, why, c.want, c.why)
			}
		})
	}
}

// readChat returns the text and the finish reason of each choice.
func readChat(t testing.TB, answer string) (texts, reasons []string) {
	t.Helper()
	var a struct {
		Choices []struct {
			Index   int
			Text    string
			Message struct{ Content string }
			Reason  string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		t.Fatal(err)
	}
	for i, c := range a.Choices {
		if c.Index != i {
			t.Errorf("choice %d has index %d", i, c.Index)
		}
		texts, reasons = append(texts, c.Text+c.Message.Content), append(reasons, c.Reason)
	}
	return texts, reasons
}

func TestAnswer_Choices(t *testing.T) {
	one := func(text string, tokens string) string {
		return `{"generated_text":"` + text + `","details":{"finish_reason":"length","generated_tokens":` + tokens + `}}`
	}
	r := mustRead(t, textCall, `{"prompt":["a","b"],"n":2,"echo":true}`, llama())
	got, usage := mustAnswer(t, r, reply(one("1", "10"), "x-prompt-tokens", "3"), reply(one("2", "20"), "x-prompt-tokens", "3"),
		reply(one("3", "30"), "x-prompt-tokens", "4"), reply(one("4", "40"), "x-prompt-tokens", "4"))
	texts, _ := readChat(t, got)
	if strings.Join(texts, " ") != "a1 a2 b3 b4" {
		t.Errorf("got %v", texts)
	}
	if usage != (openai.Usage{Prompt: 7, Completion: 100, Total: 107, Counted: true}) {
		t.Errorf("a prompt counts once: %+v", usage)
	}
	if _, _, err := r.Answer(nil); err == nil {
		t.Error("no replies made an answer")
	}
}

func TestAnswer_UncountedPrompt(t *testing.T) {
	got, usage := mustAnswer(t, mustRead(t, chatCall, `{`+hi+`}`, llama()), reply(tgi2, "x-prompt-tokens", "many"))
	if usage.Counted || usage.Prompt != 0 || !strings.Contains(got, `"prompt_tokens":0,"completion_tokens":3,"total_tokens":3}`) {
		t.Errorf("got %+v, %s", usage, got)
	}
}

func TestAnswer_Invalid(t *testing.T) {
	m := llama()
	m.Limits.Answer = 2000
	r := mustRead(t, chatCall, `{`+hi+`}`, m)
	for _, body := range []string{``, `[]`, `<html>canary`, `{"generated_text":"canary"}`, `{"details":{}}`, `{"generated_text":7,"details":{}}`,
		`{"generated_text":"` + strings.Repeat("canary", 400) + `","details":{}}`} {
		_, _, err := r.Answer([]openai.TGIReply{reply(body)})
		p, ok := errors.AsType[*openai.Problem](err)
		if !ok || p.Status != 502 || strings.Contains(p.Message, "canary") {
			t.Errorf("%.40s: %v", body, err)
		}
	}
}
