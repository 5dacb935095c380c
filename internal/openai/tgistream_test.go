package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/openai"
)

// piece returns the event of a token as version 2 of TGI sends it.
func piece(text string) string {
	return fmt.Sprintf(`data:{"index":1,"token":{"id":5,"text":%s,"logprob":-0.5,"special":false},"generated_text":null,"details":null}`+"\n\n", quoted(text))
}

func special(text string) string {
	return strings.Replace(piece(text), `"special":false`, `"special":true`, 1)
}

// last returns the last event as version 3 of TGI sends it.
func last(token, reason string, tokens int) string {
	end := fmt.Sprintf(`"generated_text":"all","details":{"finish_reason":%q,"generated_tokens":%d,"seed":7,"input_length":4}`, reason, tokens)
	return strings.Replace(token, `"generated_text":null,"details":null`, end, 1)
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// chunk returns a chunk of OpenAI's without the common fields.
func chunk(choice string) string {
	return `data: {"id":"id-1","object":"chat.completion.chunk","created":1700000000,"model":"org/llama","system_fingerprint":null,"choices":[` + choice + `]}` + "\n\n"
}

const (
	roleChunk = `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`
	stopChunk = `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`
	done      = "data: [DONE]\n\n"
)

func textChunk(text string) string {
	return `{"index":0,"delta":{"content":` + quoted(text) + `},"logprobs":null,"finish_reason":null}`
}

// streamOf feeds complete streams, one for each choice, one after the other.
func streamOf(t testing.TB, r *openai.TGIRequest, upstream ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	s := r.Stream(&out)
	for i, text := range upstream {
		if err := s.Feed(i, []byte(text)); err != nil {
			return out.String(), err
		}
		if err := s.End(i); err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

func chatStream(t testing.TB, more string) *openai.TGIRequest {
	return mustRead(t, chatCall, `{`+hi+`,"stream":true`+more+`}`, llama())
}

// deltas returns the text and the finish reason of each choice of a stream.
func deltas(t testing.TB, stream string, n int) (texts, reasons []string) {
	t.Helper()
	texts, reasons = make([]string, n), make([]string, n)
	for _, event := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok || strings.Contains(data, "\n") {
			t.Fatalf("no event: %q", event)
		}
		if data == "[DONE]" {
			continue
		}
		var c struct {
			Choices []struct {
				Index  int
				Text   string
				Delta  struct{ Content string }
				Reason string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for _, one := range c.Choices {
			if reasons[one.Index] != "" {
				t.Errorf("choice %d goes on after its end: %s", one.Index, data)
			}
			texts[one.Index] += one.Delta.Content + one.Text
			reasons[one.Index] = one.Reason
		}
	}
	return texts, reasons
}

func TestStream_EachVersion(t *testing.T) {
	v1 := `data:{"token":{"id":1,"text":" Deep","logprob":-0.5,"special":false},"generated_text":null,"details":null}` + "\n\n" +
		`data:{"token":{"id":2,"text":" end","logprob":-0.5,"special":false},"generated_text":" Deep end","details":{"finish_reason":"length","generated_tokens":2,"seed":null}}` + "\n\n"
	v2 := `data:{"index":1,"token":{"id":1,"text":" Deep","logprob":-0.5,"special":false},"top_tokens":[],"generated_text":null,"details":null}` + "\n\n" +
		`data:{"index":2,"token":{"id":2,"text":" end","logprob":-0.5,"special":false},"generated_text":" Deep end","details":{"finish_reason":"length","generated_tokens":2,"seed":7}}` + "\n\n"
	v3 := `data: {"index":1,"token":{"id":1,"text":" Deep","logprob":-0.5,"special":false},"generated_text":null,"details":null}` + "\n\n:\n\n" +
		`data: {"index":2,"token":{"id":2,"text":" end","logprob":-0.5,"special":false},"generated_text":" Deep end","details":{"finish_reason":"length","generated_tokens":2,"seed":7,"input_length":3}}` + "\n\n"
	want := chunk(roleChunk) + chunk(textChunk(" Deep")) + chunk(textChunk(" end")) +
		chunk(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}`) + done
	for name, upstream := range map[string]string{"1": v1, "2": v2, "3": v3} {
		got, err := streamOf(t, chatStream(t, ""), upstream)
		if err != nil || got != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
		}
	}
}

func TestStream_Text(t *testing.T) {
	cases := []struct {
		name, more, upstream, want, why string
	}{
		{"the last token is not lost", ``, piece("a") + last(piece("b"), "length", 2), "ab", "length"},
		{"nor where a stop text may begin", `,"stop":"END"`, piece("a") + last(piece("EN"), "length", 2), "aEN", "length"},
		{"special tokens are no text", ``, special("<think>") + piece("a") + last(special("</s>"), "eos_token", 3), "a", "stop"},
		{"the end as text", ``, piece("a") + last(piece("</s>"), "stop_sequence", 2), "a", "stop"},
		{"a stop text over three tokens", `,"stop":"STOP"`, piece("aS") + piece("TO") + last(piece("P"), "stop_sequence", 3), "a", "stop"},
		{"one that seemed to begin", `,"stop":"STOP"`, piece("aS") + piece("TO") + piece("x") + last(piece("y"), "eos_token", 4), "aSTOxy", "stop"},
		{"inside of a token", `,"stop":"STOP"`, piece("aSTOPb") + piece("c") + last(piece("d"), "length", 3), "a", "stop"},
		{"the last of all", `,"stop":"STOP"`, last(piece("aSTOP"), "length", 1), "a", "stop"},
		{"letters that are not whole stay as TGI has them", ``, piece("") + piece("é") + piece("\ufffd") + last(piece(""), "eos_token", 4), "é\ufffd", "stop"},
		{"nothing", ``, last(special("</s>"), "eos_token", 1), "", "stop"},
		{"without details", ``, piece("a") + strings.Replace(piece("b"), `"generated_text":null`, `"generated_text":"ab"`, 1), "ab", "stop"},
		{"what follows the end is not read", ``, last(piece("a"), "length", 1) + "data:{canary\n\n" + piece("b"), "a", "length"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := streamOf(t, chatStream(t, c.more), c.upstream)
			if err != nil {
				t.Fatal(err)
			}
			texts, reasons := deltas(t, got, 1)
			if texts[0] != c.want || reasons[0] != c.why || !strings.HasSuffix(got, done) {
				t.Errorf("got %q, %s; want %q, %s\n%s", texts, reasons, c.want, c.why, got)
			}
		})
	}
}

func TestStream_HoldsBackStopPrefix(t *testing.T) {
	var out bytes.Buffer
	s := chatStream(t, `,"stop":"END"`).Stream(&out)
	for _, step := range []struct{ text, want string }{{"a", "a"}, {"bE", "b"}, {"N", ""}, {"N", "ENN"}, {"E", ""}, {"E", "E"}} {
		out.Reset()
		if err := s.Feed(0, []byte(piece(step.text))); err != nil {
			t.Fatal(err)
		}
		texts := []string{""}
		if out.Len() > 0 {
			texts, _ = deltas(t, out.String(), 1)
		}
		if texts[0] != step.want {
			t.Errorf("after %q: got %q, want %q", step.text, texts[0], step.want)
		}
	}
}

func TestStream_Usage(t *testing.T) {
	got, err := streamOf(t, chatStream(t, `,"stream_options":{"include_usage":true}`), piece("a")+last(piece("b"), "length", 2))
	if err != nil {
		t.Fatal(err)
	}
	with := func(choice, usage string) string {
		return strings.Replace(chunk(choice), `]}`+"\n", `],"usage":`+usage+`}`+"\n", 1)
	}
	want := with(roleChunk, "null") + with(textChunk("a"), "null") + with(textChunk("b"), "null") +
		with(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}`, "null") +
		with("", `{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}`) + done
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestStream_TextCall(t *testing.T) {
	r := mustRead(t, textCall, `{"prompt":"p","stream":true,"echo":true,"seed":3}`, llama())
	got, err := streamOf(t, r, piece("a")+last(special("</s>"), "eos_token", 2))
	part := func(text, reason string) string {
		return `data: {"id":"id-1","object":"text_completion","created":1700000000,"model":"org/llama","system_fingerprint":"fp_3","choices":[{"index":0,"text":"` + text + `","logprobs":null,"finish_reason":` + reason + `}]}` + "\n\n"
	}
	if want := part("p", "null") + part("a", "null") + part("", `"stop"`) + done; err != nil || got != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

func TestStream_Logprobs(t *testing.T) {
	got, err := streamOf(t, chatStream(t, `,"logprobs":true,"stop":"END"`), piece("aE")+piece("N")+last(piece("D"), "stop_sequence", 3))
	a := `{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"aE","logprob":-0.5,"bytes":[97,69],"top_logprobs":[]}],"refusal":null},"finish_reason":null}`
	if want := chunk(roleChunk) + chunk(a) + chunk(stopChunk) + done; err != nil || got != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

// TestStream_LogprobsOfTokensWithoutText checks that the logprob of a token
// without text, such as a part of a character, is sent.
func TestStream_LogprobsOfTokensWithoutText(t *testing.T) {
	upstream := piece("") + piece("aE") + piece("") + piece("é") + last(piece(""), "eos_token", 5)
	got, err := streamOf(t, chatStream(t, `,"logprobs":true,"stop":"END"`), upstream)
	var tokens []string
	for _, part := range strings.Split(got, `{"token":`)[1:] {
		tokens = append(tokens, part[:strings.Index(part, ",")])
	}
	if want := `["" "aE" "" "é" ""]`; err != nil || fmt.Sprint(tokens) != want {
		t.Errorf("got %v, want %s: %v", tokens, want, err)
	}
}

func TestStream_Choices(t *testing.T) {
	var out bytes.Buffer
	s := chatStream(t, `,"n":2,"stream_options":{"include_usage":true}`).Stream(&out)
	for _, step := range []struct {
		i    int
		text string
	}{{1, piece("x")}, {0, piece("a")}, {1, last(piece("y"), "length", 2)}, {0, piece("b")}, {0, last(piece("c"), "length", 3)}} {
		if strings.HasSuffix(out.String(), done) {
			t.Error("it ended before its last choice")
		}
		if err := s.Feed(step.i, []byte(step.text)); err != nil {
			t.Fatal(err)
		}
	}
	texts, reasons := deltas(t, out.String(), 2)
	if fmt.Sprint(texts, reasons) != "[abc xy] [length length]" || strings.Count(out.String(), done) != 1 || !strings.HasSuffix(out.String(), done) {
		t.Errorf("got %s %s\n%s", texts, reasons, out.String())
	}
	if want := (openai.Usage{Prompt: 4, Completion: 5, Total: 9, Counted: true}); s.Usage() != want {
		t.Errorf("usage %+v", s.Usage())
	}
	if s.End(0) != nil || s.End(1) != nil || s.Wants(0) || s.Wants(1) {
		t.Error("it is not over")
	}
}

// TestStream_Wants checks that the caller can disconnect from TGI after a stop
// text, unless the prompt must still be counted for the usage.
func TestStream_Wants(t *testing.T) {
	feed := func(more string, h http.Header) (*openai.TGIStream, *bytes.Buffer) {
		var out bytes.Buffer
		s := chatStream(t, `,"stop":"END"`+more).Stream(&out)
		s.Header(0, h)
		if err := s.Feed(0, []byte(piece("aENDb"))); err != nil {
			t.Fatal(err)
		}
		return s, &out
	}
	if s, out := feed(``, nil); s.Wants(0) || !strings.HasSuffix(out.String(), done) || s.Usage().Completion != 1 {
		t.Errorf("without usage: got %s", out)
	}
	const usage = `,"stream_options":{"include_usage":true}`
	if s, out := feed(usage, http.Header{"X-Prompt-Tokens": {"4"}}); s.Wants(0) || !strings.HasSuffix(out.String(), done) {
		t.Errorf("with a header: got %s", out)
	}
	s, out := feed(usage, nil)
	if !s.Wants(0) || !strings.Contains(out.String(), `"finish_reason":"stop"`) || strings.HasSuffix(out.String(), done) {
		t.Errorf("with usage: got %s", out)
	}
	if err := s.Feed(0, []byte(piece("c")+last(piece("d"), "length", 3))); err != nil || s.Wants(0) {
		t.Errorf("at its end: %v", err)
	}
	if !strings.Contains(out.String(), `"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}`) {
		t.Errorf("got %s", out)
	}
}

// TestStream_Tokenized checks the usage of older versions, whose streams do
// not report the prompt's tokens.
func TestStream_Tokenized(t *testing.T) {
	r := chatStream(t, `,"n":2,"stream_options":{"include_usage":true}`)
	if !r.Counts(0) || string(r.Tokenize(1)) != `{"inputs":"user:hi\nassistant:"}` {
		t.Errorf("got %s", r.Tokenize(1))
	}
	old := strings.Replace(last(piece("a"), "length", 1), `,"input_length":4`, "", 1)
	for body, want := range map[string]int{`[{"id":1,"text":"u","start":0,"stop":1},{"id":2,"text":"x","start":1,"stop":2}]`: 2, `{"error":"x"}`: 0, ``: 0} {
		var out bytes.Buffer
		s := r.Stream(&out)
		s.Tokenized(1, []byte(body))
		if err := errors.Join(s.Feed(0, []byte(old)), s.Feed(1, []byte(old))); err != nil {
			t.Fatal(err)
		}
		if u := s.Usage(); u.Prompt != want || u.Counted != (want > 0) || !strings.Contains(out.String(), fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":2,`, want)) {
			t.Errorf("%s: got %+v\n%s", body, u, out.String())
		}
	}
	if chatStream(t, "").Counts(0) {
		t.Error("Counts is true without a request for usage")
	}
}

func TestStream_Errors(t *testing.T) {
	const failed = `data:{"error":"Request failed during generation: canary","error_type":"generation"}` + "\n\n"
	const reported = "event: error\n" + `data: {"error":{"message":"the model's server: Request failed during generation: canary","type":"server_error","param":null,"code":"generation"}}` + "\n\n"
	const early = "event: error\n" + `data: {"error":{"message":"the model's server ended its stream before the end of the answer","type":"server_error","param":null,"code":"bad_gateway"}}` + "\n\n"
	const strange = "event: error\n" + `data: {"error":{"message":"the model's server sent an event that is unknown in TGI","type":"server_error","param":null,"code":"bad_gateway"}}` + "\n\n"
	begun := chunk(roleChunk) + chunk(textChunk("a"))
	cases := []struct {
		name, upstream, want string
		status               int
	}{
		{"after some text", piece("a") + failed + piece("b"), begun + reported, 424},
		{"at once: the status can still be set", failed, "", 424},
		{"too many at once", `data: {"error":"Model is overloaded","error_type":"overloaded"}` + "\n\n", "", 429},
		{"a wrong call", `data: {"error":"Input validation error","error_type":"validation"}` + "\n\n", "", 422},
		{"of no known type", `data: {"error":"x"}` + "\n\n", "", 500},
		{"an early end", piece("a"), begun + early, 502},
		{"in the middle of an event", piece("a") + piece("b")[:30], begun + strange, 502},
		{"no stream at all", "", "", 502},
		{"a page", "<html>canary\n\n</html>", "", 502},
		{"no JSON", "data: canary\n\n", "", 502},
		{"another's JSON", "data: {\"choices\":[]}\n\n", "", 502},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			s := chatStream(t, "").Stream(&out)
			err := s.Feed(0, []byte(c.upstream))
			if err == nil {
				err = s.End(0)
			}
			p, ok := errors.AsType[*openai.Problem](err)
			if !ok || p.Status != c.status || out.String() != c.want || strings.Contains(err.Error(), "canary") {
				t.Errorf("%v\ngot  %s\nwant %s", err, out.String(), c.want)
			}
			if s.Began() != (c.want != "") || s.Wants(0) {
				t.Error("Began or Wants is wrong")
			}
			size := out.Len()
			if !errors.Is(s.Feed(0, []byte(piece("x"))), err) || !errors.Is(s.End(0), err) || !errors.Is(s.Fail(p), err) || out.Len() != size {
				t.Error("the stream continues after its error")
			}
		})
	}
}

func TestStream_Fail(t *testing.T) {
	var out bytes.Buffer
	s := chatStream(t, `,"n":2`).Stream(&out)
	gone := &openai.Problem{Status: 502, Code: "bad_gateway", Message: "the replica has ended"}
	if err := s.Feed(1, []byte(piece("a"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Fail(gone); !errors.Is(err, gone) || !strings.HasSuffix(out.String(), `"code":"bad_gateway"}}`+"\n\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	whole := chatStream(t, "").Stream(&out)
	if err := whole.Feed(0, []byte(last(piece("a"), "length", 1))); err != nil || whole.Fail(gone) != nil || !strings.HasSuffix(out.String(), done) {
		t.Errorf("a whole stream failed: %v\n%s", err, out.String())
	}
}

type brokenWriter struct{}

var errGone = errors.New("gone")

func (brokenWriter) Write([]byte) (int, error) { return 0, errGone }

func TestStream_ClientDisconnects(t *testing.T) {
	s := chatStream(t, "").Stream(brokenWriter{})
	for range 2 {
		if err := s.Feed(0, []byte(piece("a"))); !errors.Is(err, errGone) {
			t.Errorf("got %v", err)
		}
	}
	if s.Wants(0) {
		t.Error("Wants is true after the client disconnected")
	}
}

func TestStream_LargeEvents(t *testing.T) {
	m := llama()
	m.Limits.Event = 1 << 20
	for _, upstream := range []string{strings.Repeat("x", 2<<20), "data:" + strings.Repeat("x", 2<<20) + "\n\n", strings.Repeat("data:"+strings.Repeat("x", 1<<10)+"\n", 2<<10)} {
		var out bytes.Buffer
		s := mustRead(t, chatCall, `{`+hi+`,"stream":true}`, m).Stream(&out)
		var err error
		for i := 0; i < len(upstream) && err == nil; i += 32 << 10 {
			err = s.Feed(0, []byte(upstream[i:min(i+32<<10, len(upstream))]))
		}
		if err == nil || !strings.Contains(err.Error(), "1MB") {
			t.Errorf("got %v", err)
		}
	}
}

// TestStream_PendingTokensAreBounded checks the limit of bytes of pending
// tokens.
func TestStream_PendingTokensAreBounded(t *testing.T) {
	s := chatStream(t, `,"logprobs":true,"top_logprobs":1,"stop":"zzz"`).Stream(&bytes.Buffer{})
	if err := s.Feed(0, []byte(piece("z"))); err != nil {
		t.Fatal(err)
	}
	large := strings.Replace(piece(""), `"generated_text"`, `"top_tokens":[{"id":1,"text":"`+strings.Repeat("a", 1<<20)+`","logprob":-1,"special":false}],"generated_text"`, 1)
	for range 64 {
		if err := s.Feed(0, []byte(large)); err != nil {
			if !strings.Contains(err.Error(), "too many tokens without text") {
				t.Errorf("the error is %v", err)
			}
			return
		}
	}
	t.Error("64 MiB wait")
}
