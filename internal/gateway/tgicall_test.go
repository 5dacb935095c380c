package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// tgi is a replica that continues texts: it repeats the last words of its
// prompt, a token each, and ends with </s>.
type tgi struct {
	asked atomic.Int64
	left  atomic.Int64 // streams whose reader disconnected
	last  atomic.Value // the last body
	info  string
	hang  chan struct{} // if set, a stream waits here before its end
}

func (s *tgi) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/info" {
		io.WriteString(w, s.info)
		return
	}
	s.asked.Add(1)
	var ask struct {
		Inputs     string
		Parameters struct {
			MaxNewTokens int `json:"max_new_tokens"`
			Seed         int
		}
	}
	body, _ := io.ReadAll(r.Body)
	s.last.Store(string(body))
	if err := json.Unmarshal(body, &ask); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	if strings.Contains(ask.Inputs, "too long") {
		w.WriteHeader(http.StatusUnprocessableEntity)
		io.WriteString(w, `{"error":"Input validation error: too long","error_type":"validation"}`)
		return
	}
	words := strings.SplitAfter("you said "+ask.Inputs[max(0, len(ask.Inputs)-12):], " ")
	if r.URL.Path == "/generate" {
		w.Header().Set("X-Prompt-Tokens", "7")
		fmt.Fprintf(w, `{"generated_text":%q,"details":{"finish_reason":"eos_token","generated_tokens":%d,"seed":%d,"prefill":[],"tokens":[]}}`,
			strings.Join(words, "")+"</s>", len(words)+1, ask.Parameters.Seed)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i, word := range words {
		fmt.Fprintf(w, "data:{\"index\":%d,\"token\":{\"id\":1,\"text\":%q,\"logprob\":-1.0,\"special\":false},\"generated_text\":null,\"details\":null}\n\n", i, word)
		w.(http.Flusher).Flush()
	}
	if s.hang != nil {
		select {
		case <-s.hang:
		case <-r.Context().Done():
			s.left.Add(1)
			return
		}
	}
	fmt.Fprintf(w, "data:{\"index\":9,\"token\":{\"id\":2,\"text\":\"</s>\",\"logprob\":-1.0,\"special\":true},\"generated_text\":\"x\",\"details\":{\"finish_reason\":\"eos_token\",\"generated_tokens\":%d,\"input_length\":7,\"seed\":null}}\n\n", len(words)+1)
}

const chatml = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if loud %}LOUD {% endif %}[assistant]"

func tgiRoute(name string, t *dstack.ChatTemplate, ready ...route.Target) route.Route {
	r := modelRoute(name, "org/m", ready...)
	r.Format, r.Prefix, r.Template = "tgi", "", t
	return r
}

func chatTemplate(source string) *dstack.ChatTemplate {
	return &dstack.ChatTemplate{Default: source, Tokens: map[string]string{"eos_token": "</s>", "bos_token": "<s>"}}
}

func (r *testGateway) sendChat(body string) response {
	r.t.Helper()
	return r.do(r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(body), withToken(member)...))
}

func TestTGI_AnswersAndStreams(t *testing.T) {
	replicaOf := &tgi{}
	loud := chatTemplate(chatml)
	loud.Kwargs = json.RawMessage(`{"loud":true}`)
	m := tgiRoute("m", loud, startReplica(t, 0, replicaOf.ServeHTTP))
	r := startGateway(t, gateway.Limits{}, m)
	got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hello"}],"temperature":0,"max_tokens":5}`)
	if got.StatusCode != 200 || !strings.Contains(got.body, `"content":"you said  [assistant]"`) || !strings.Contains(got.body, `"finish_reason":"stop"`) ||
		!strings.Contains(got.body, `"usage":{"prompt_tokens":7,`) || got.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	// The server adds the BOS token itself, so the template's is removed.
	if want := `"inputs":"[user] hello\nLOUD [assistant]"`; !strings.Contains(replicaOf.last.Load().(string), want) {
		t.Errorf("the replica was asked %s", replicaOf.last.Load())
	}
	client := openaigo.NewClient(option.WithBaseURL(r.server.URL+"/proxy/models/main/v1"), option.WithAPIKey(member), option.WithHTTPClient(r.client))
	stream := client.Chat.Completions.NewStreaming(t.Context(), openaigo.ChatCompletionNewParams{
		Model: "org/m", Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage("hello")},
		StreamOptions: openaigo.ChatCompletionStreamOptionsParam{IncludeUsage: openaigo.Bool(true)},
	})
	text, finish, prompt := "", "", int64(0)
	for stream.Next() {
		chunk := stream.Current()
		for _, c := range chunk.Choices {
			text += c.Delta.Content
			finish += c.FinishReason
		}
		prompt += chunk.Usage.PromptTokens
	}
	if err := stream.Err(); err != nil || text != "you said  [assistant]" || finish != "stop" || prompt != 7 {
		t.Errorf("the stream says %q, %q, %d tokens, %v", text, finish, prompt, err)
	}
	two := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hello"}],"n":2,"seed":5}`)
	if strings.Count(two.body, `"index":`) != 2 || !strings.Contains(two.body, `"index":1`) {
		t.Errorf("two choices are %s", two.body)
	}
	plain := r.do(r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(`{"model":"org/m","prompt":"a b c"}`), withToken(member)...))
	if plain.StatusCode != 200 || !strings.Contains(plain.body, `"text":"you said a b c"`) {
		t.Errorf("a completion is %d %s", plain.StatusCode, plain.body)
	}
	waitUntil(t, "all is counted", func() bool { return r.metrics(m.Run).TokensIn == 7*4 })
	if n := r.metrics(m.Run); n.Streams == 0 || n.TokensOut == 0 {
		t.Errorf("the metrics are %+v", n)
	}
}

func TestTGI_Errors(t *testing.T) {
	up := startReplica(t, 0, (&tgi{info: "{}"}).ServeHTTP)
	bomb := "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
	for _, c := range []struct {
		name, source, body string
		status             int
		says               []string
	}{
		{"the template fails", "{{ raise_exception('roles must alternate') }}", `"messages":[{"role":"user","content":"a"}]`, 400, []string{"roles must alternate", "line 1", `"param":"messages"`}},
		{"the template fails", "a\nb\n{{ messages.x + 1 }}", `"messages":[{"role":"user","content":"a"}]`, 400, []string{"line 3"}},
		{"a bomb", bomb, `"messages":[{"role":"user","content":"a"}]`, 400, []string{"line 1"}},
		{"no messages", chatml, `"messages":[]`, 400, []string{`"param":"messages"`}},
		{"what TGI lacks", chatml, `"messages":[{"role":"user","content":"a"}],"logit_bias":{"1":1}`, 400, []string{`"param":"logit_bias"`}},
		{"kwargs of the request", chatml, `"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"a":1}`, 400, []string{"chat_template_kwargs"}},
		{"the server refuses", chatml, `"messages":[{"role":"user","content":"too long"}]`, 422, []string{"too long"}},
		{"the server refuses a stream", chatml, `"messages":[{"role":"user","content":"too long"}],"stream":true`, 422, []string{"too long"}},
		{"no template", "", `"messages":[{"role":"user","content":"a"}]`, 502, []string{"no chat template is known for org/m", "write model.chat_template"}},
	} {
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(c.source), up))
		began := time.Now()
		got := r.sendChat(`{"model":"org/m",` + c.body + `}`)
		if got.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, got.StatusCode, got.body)
		}
		for _, want := range append(c.says, `{"error":{"message":`) {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s: %s does not say %s", c.name, got.body, want)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
		if got := r.do(r.newRequest("POST", "http://gateway.localhost/v1/embeddings", strings.NewReader(`{"model":"org/m","input":"a"}`), withToken(member)...)); got.StatusCode != 404 {
			t.Errorf("embeddings: %d %s", got.StatusCode, got.body)
		}
	}
}

// Without a configured template, the replica may report its own.
func TestTGI_TemplateOfTheReplica(t *testing.T) {
	said := &tgi{info: `{"model_id":"org/m","chat_template":"<{{ messages[0].content }}{{ eos_token }}>","eos_token":"</s>"}`}
	for name, known := range map[string]*dstack.ChatTemplate{"nothing is known": nil, "only tokens are": {Tokens: map[string]string{"eos_token": "</x>"}}} {
		r := startGateway(t, gateway.Limits{}, tgiRoute("m", known, startReplica(t, 0, said.ServeHTTP)))
		for range 2 {
			if got := r.sendChat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`); got.StatusCode != 200 {
				t.Fatalf("%s: %d %s", name, got.StatusCode, got.body)
			}
			want := map[bool]string{true: `"inputs":"<hi</s>>"`, false: `"inputs":"<hi</x>>"`}[known == nil]
			if !strings.Contains(said.last.Load().(string), want) {
				t.Errorf("%s: it was asked %s", name, said.last.Load())
			}
		}
	}
}

// A client that disconnects ends the replica's work, and a replica that refuses
// connections fails no request.
func TestTGI_DisconnectsAndFailures(t *testing.T) {
	s := &tgi{hang: make(chan struct{})}
	defer close(s.hang)
	dead := targetAt("127.0.0.1:1", 0)
	r := startGateway(t, gateway.Limits{}, tgiRoute("m", chatTemplate(chatml), dead, startReplica(t, 1, s.ServeHTTP)))
	ctx, cancel := context.WithCancel(t.Context())
	req := r.newRequest("POST", "http://gateway.localhost/v1/chat/completions", strings.NewReader(`{"model":"org/m","messages":[{"role":"user","content":"a"}],"stream":true}`), withToken(member)...)
	res, err := r.client.Do(req.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 64)
	if _, err := io.ReadFull(res.Body, first); err != nil || !strings.HasPrefix(string(first), "data: ") {
		t.Fatalf("the stream begins with %q, %v", first, err)
	}
	cancel()
	waitUntil(t, "the replica is left", func() bool { return s.left.Load() == 1 })
}
