package openai_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dstack/internal/openai"
)

var (
	chatCall = openai.ParseCall("/v1/chat/completions")
	textCall = openai.ParseCall("/v1/completions")
)

// plain is a template that shows the role and content of each message.
func plain(vars json.RawMessage) (string, error) {
	var v struct {
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(vars, &v); err != nil {
		return "", err
	}
	prompt := "<s>"
	for _, m := range v.Messages {
		prompt += m.Role + ":" + m.Content + "\n"
	}
	return prompt + "assistant:", nil
}

// llama returns the model of most tests.
func llama() openai.TGIModel {
	return openai.TGIModel{Name: "org/llama", Prompt: plain, BOS: "<s>", EOS: "</s>"}
}

const hi = `"messages":[{"role":"user","content":"hi"}]`

func mustRead(t testing.TB, call openai.Call, body string, m openai.TGIModel) *openai.TGIRequest {
	t.Helper()
	r, err := openai.ReadTGI(call, []byte(body), m, 1700000000)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	r.ID = "id-1"
	return r
}

const (
	askedHi  = `{"inputs":"user:hi\nassistant:","parameters":{`
	askedEnd = `"stop":["</s>"],"details":true}}`
)

// bodies are calls and the complete bodies for TGI.
var bodies = []struct {
	name string
	call openai.Call
	body string
	want string
}{
	{"only messages", chatCall, `{` + hi + `}`, askedHi + `"do_sample":true,` + askedEnd},
	{"nulls are not there", chatCall, `{` + hi + `,"temperature":null,"top_p":null,"n":null,"stop":null,"max_tokens":null,"seed":null,"tools":null,"response_format":null,"logit_bias":null,"stream":null}`,
		askedHi + `"do_sample":true,` + askedEnd},
	{"temperature", chatCall, `{` + hi + `,"temperature":0.7}`, askedHi + `"do_sample":true,"temperature":0.7,` + askedEnd},
	{"temperature 0 is greedy, and nothing makes it sample", chatCall, `{` + hi + `,"temperature":0,"top_p":0.5,"top_k":40,"typical_p":0.9}`,
		askedHi + `"do_sample":false,` + askedEnd},
	{"next to no temperature is none", chatCall, `{` + hi + `,"temperature":1e-9}`, askedHi + `"do_sample":false,` + askedEnd},
	{"top_p", chatCall, `{` + hi + `,"top_p":0.9}`, askedHi + `"do_sample":true,"top_p":0.9,` + askedEnd},
	{"top_p 1 is no top_p", chatCall, `{` + hi + `,"top_p":1}`, askedHi + `"do_sample":true,` + askedEnd},
	{"top_p 0 is greedy", chatCall, `{` + hi + `,"top_p":0}`, askedHi + `"do_sample":false,` + askedEnd},
	{"TGI's own", chatCall, `{` + hi + `,"top_k":40,"typical_p":0.9,"repetition_penalty":1.1}`,
		askedHi + `"do_sample":true,"top_k":40,"typical_p":0.9,"repetition_penalty":1.1,` + askedEnd},
	{"top_k -1 is no top_k", chatCall, `{` + hi + `,"top_k":-1,"repetition_penalty":1.0}`, askedHi + `"do_sample":true,` + askedEnd},
	{"frequency_penalty", chatCall, `{` + hi + `,"frequency_penalty":-0.5,"presence_penalty":0.0,"logit_bias":{}}`,
		askedHi + `"do_sample":true,"frequency_penalty":-0.5,` + askedEnd},
	{"max_tokens", chatCall, `{` + hi + `,"max_tokens":17}`, askedHi + `"do_sample":true,"max_new_tokens":17,` + askedEnd},
	{"max_completion_tokens wins", chatCall, `{` + hi + `,"max_completion_tokens":18,"max_tokens":17}`,
		askedHi + `"do_sample":true,"max_new_tokens":18,` + askedEnd},
	{"seed", chatCall, `{` + hi + `,"seed":42}`, askedHi + `"do_sample":true,"seed":42,` + askedEnd},
	{"a seed below zero", chatCall, `{` + hi + `,"seed":-1}`, askedHi + `"do_sample":true,"seed":18446744073709551615,` + askedEnd},
	{"a seed of TGI's", chatCall, `{` + hi + `,"seed":18446744073709551615}`, askedHi + `"do_sample":true,"seed":18446744073709551615,` + askedEnd},
	{"one stop text", chatCall, `{` + hi + `,"stop":"END"}`, askedHi + `"do_sample":true,"stop":["END","</s>"],"details":true}}`},
	{"some, one twice", chatCall, `{` + hi + `,"stop":["<a>","</s>","<a>"]}`, askedHi + `"do_sample":true,"stop":["<a>","</s>"],"details":true}}`},
	{"as many as the server takes", chatCall, `{` + hi + `,"stop":["1","2","3","4"]}`, askedHi + `"do_sample":true,"stop":["1","2","3","4"],"details":true}}`},
	{"logprobs", chatCall, `{` + hi + `,"logprobs":true,"top_logprobs":3}`, askedHi + `"do_sample":true,"stop":["</s>"],"top_n_tokens":3,"details":true}}`},
	{"a stream", chatCall, `{` + hi + `,"stream":true,"stream_options":{"include_usage":true}}`, askedHi + `"do_sample":true,` + askedEnd},
	{"a schema keeps its order", chatCall, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"object","properties":{"b":{"type":"string","pattern":"<&>"},"a":{}}}}}}`,
		askedHi + `"do_sample":true,"stop":["</s>"],"grammar":{"type":"json","value":{"type":"object","properties":{"b":{"type":"string","pattern":"<&>"},"a":{}}}},"details":true}}`},
	{"TGI's own schema", chatCall, `{` + hi + `,"response_format":{"type":"json_object","value":{"properties":{}}}}`,
		askedHi + `"do_sample":true,"stop":["</s>"],"grammar":{"type":"json","value":{"properties":{}}},"details":true}}`},
	{"TGI's own regex", chatCall, `{` + hi + `,"response_format":{"type":"regex","value":"[0-9]+"}}`,
		askedHi + `"do_sample":true,"stop":["</s>"],"grammar":{"type":"regex","value":"[0-9]+"},"details":true}}`},
	{"a format of text", chatCall, `{` + hi + `,"response_format":{"type":"text"}}`, askedHi + `"do_sample":true,` + askedEnd},
	{"harmless fields", chatCall, `{` + hi + `,"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","parallel_tool_calls":true,"reasoning_effort":"low","unheard_of":[1],"modalities":["text"],"n":1,"add_generation_prompt":true}`,
		askedHi + `"do_sample":true,` + askedEnd},
	{"a text", textCall, `{"prompt":"Once <upon>","max_tokens":5,"best_of":1,"suffix":"","echo":false}`,
		`{"inputs":"Once <upon>","parameters":{"do_sample":true,"max_new_tokens":5,` + askedEnd},
	{"the text's front stays", textCall, `{"prompt":"<s>Once"}`, `{"inputs":"<s>Once","parameters":{"do_sample":true,` + askedEnd},
	{"a list of one", textCall, `{"prompt":["Once"],"logprobs":2}`, `{"inputs":"Once","parameters":{"do_sample":true,"stop":["</s>"],"top_n_tokens":2,"details":true}}`},
}

func TestReadTGI_Bodies(t *testing.T) {
	for _, c := range bodies {
		t.Run(c.name, func(t *testing.T) {
			r := mustRead(t, c.call, c.body, llama())
			if got := string(r.Body(0)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if want := map[bool]string{false: "/generate", true: "/generate_stream"}[r.Streams()]; r.Path() != want || r.Choices() != 1 {
				t.Errorf("path %s, %d choices", r.Path(), r.Choices())
			}
		})
	}
}

func TestReadTGI_Choices(t *testing.T) {
	r := mustRead(t, textCall, `{"prompt":["a","b"],"n":2,"seed":7}`, llama())
	var got []string
	for i := range r.Choices() {
		var body struct {
			Inputs     string
			Parameters struct{ Seed uint64 }
		}
		if err := json.Unmarshal(r.Body(i), &body); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(body.Inputs, body.Parameters.Seed))
	}
	if want := "[a7 a8 b7 b8]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if body := string(mustRead(t, chatCall, `{`+hi+`,"n":3}`, llama()).Body(2)); strings.Contains(body, "seed") {
		t.Errorf("no seed is asked for: TGI takes another each time: %s", body)
	}
}

func TestReadTGI_Prefill(t *testing.T) {
	m := llama()
	m.Prefill = true
	if body := string(mustRead(t, chatCall, `{`+hi+`}`, m).Body(0)); !strings.Contains(body, `"decoder_input_details":true`) {
		t.Errorf("it is not asked for: %s", body)
	}
	if body := string(mustRead(t, chatCall, `{`+hi+`,"stream":true}`, m).Body(0)); strings.Contains(body, "decoder_input_details") {
		t.Errorf("TGI refuses it in a stream: %s", body)
	}
}

// wrongCalls are invalid calls with the invalid field.
var wrongCalls = []struct {
	call        openai.Call
	body, param string
}{
	{chatCall, `{}`, "messages"},
	{chatCall, `{"messages":[]}`, "messages"},
	{chatCall, `{"messages":"hi"}`, "messages"},
	{chatCall, `{"messages":{"role":"user"}}`, "messages"},
	{chatCall, `{"messages":["hi"]}`, "messages[0]"},
	{chatCall, `{"messages":[{"content":"hi"}]}`, "messages[0].role"},
	{chatCall, `{"messages":[{"role":1,"content":"hi"}]}`, "messages[0].role"},
	{chatCall, `{"messages":[{"role":"user","content":"a"},{"role":"user"}]}`, "messages[1].content"},
	{chatCall, `{"messages":[{"role":"user","content":null}]}`, "messages[0].content"},
	{chatCall, `{"messages":[{"role":"user","content":7}]}`, "messages[0].content"},
	{chatCall, `{"messages":[{"role":"user","content":["hi"]}]}`, "messages[0].content"},
	{chatCall, `{"messages":[{"role":"user","content":[{"type":"text"}]}]}`, "messages[0].content[0]"},
	{chatCall, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}]}`, "messages[0].content[1]"},
	{chatCall, `{"messages":[{"role":"user","content":[null]}]}`, "messages[0].content[0]"},
	{chatCall, `{"messages":[{"role":"assistant","tool_calls":{}}]}`, "messages[0].tool_calls"},
	{chatCall, `{"messages":[{"role":"assistant","tool_calls":["x"]}]}`, "messages[0].tool_calls[0]"},
	{chatCall, `{` + hi + `,"temperature":"warm"}`, "temperature"},
	{chatCall, `{` + hi + `,"temperature":-0.1}`, "temperature"},
	{chatCall, `{` + hi + `,"top_p":1.1}`, "top_p"},
	{chatCall, `{` + hi + `,"top_p":-0.1}`, "top_p"},
	{chatCall, `{` + hi + `,"typical_p":0}`, "typical_p"},
	{chatCall, `{` + hi + `,"top_k":1.5}`, "top_k"},
	{chatCall, `{` + hi + `,"repetition_penalty":0}`, "repetition_penalty"},
	{chatCall, `{` + hi + `,"frequency_penalty":2.5}`, "frequency_penalty"},
	{chatCall, `{` + hi + `,"presence_penalty":0.5}`, "presence_penalty"},
	{chatCall, `{` + hi + `,"logit_bias":{"50256":-100}}`, "logit_bias"},
	{chatCall, `{` + hi + `,"min_p":0.1}`, "min_p"},
	{chatCall, `{` + hi + `,"max_tokens":0}`, "max_tokens"},
	{chatCall, `{` + hi + `,"max_tokens":"10"}`, "max_tokens"},
	{chatCall, `{` + hi + `,"max_completion_tokens":-1}`, "max_completion_tokens"},
	{chatCall, `{` + hi + `,"n":0}`, "n"},
	{chatCall, `{` + hi + `,"n":129}`, "n"},
	{chatCall, `{` + hi + `,"n":99999999999999999999}`, "n"},
	{chatCall, `{` + hi + `,"seed":1.5}`, "seed"},
	{chatCall, `{` + hi + `,"seed":"x"}`, "seed"},
	{chatCall, `{` + hi + `,"stream":"yes"}`, "stream"},
	{chatCall, `{` + hi + `,"stream_options":true}`, "stream_options"},
	{chatCall, `{` + hi + `,"stream_options":{"include_usage":1}}`, "stream_options.include_usage"},
	{chatCall, `{` + hi + `,"stop":7}`, "stop"},
	{chatCall, `{` + hi + `,"stop":["a",null]}`, "stop"},
	{chatCall, `{` + hi + `,"stop":""}`, "stop"},
	{chatCall, `{` + hi + `,"stop":["1","2","3","4","5"]}`, "stop"},
	{chatCall, `{` + hi + `,"stop":"` + strings.Repeat("x", 1025) + `"}`, "stop"},
	{chatCall, `{` + hi + `,"logprobs":1}`, "logprobs"},
	{chatCall, `{` + hi + `,"top_logprobs":1}`, "top_logprobs"},
	{chatCall, `{` + hi + `,"logprobs":true,"top_logprobs":6}`, "top_logprobs"},
	{chatCall, `{` + hi + `,"tools":{}}`, "tools"},
	{chatCall, `{` + hi + `,"tools":["x"]}`, "tools[0]"},
	{chatCall, `{` + hi + `,"documents":[1]}`, "documents[0]"},
	{chatCall, `{` + hi + `,"tool_choice":"required"}`, "tool_choice"},
	{chatCall, `{` + hi + `,"tool_choice":{"type":"function","function":{"name":"f"}}}`, "tool_choice"},
	{chatCall, `{` + hi + `,"tool_choice":"perhaps"}`, "tool_choice"},
	{chatCall, `{` + hi + `,"functions":[{"name":"f"}]}`, "functions"},
	{chatCall, `{` + hi + `,"response_format":"json"}`, "response_format"},
	{chatCall, `{` + hi + `,"response_format":{}}`, "response_format.type"},
	{chatCall, `{` + hi + `,"response_format":{"type":"json_object"}}`, "response_format"},
	{chatCall, `{` + hi + `,"response_format":{"type":"json_schema"}}`, "response_format.json_schema"},
	{chatCall, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"x"}}}`, "response_format.json_schema.schema"},
	{chatCall, `{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"string"}}}}`, "response_format.json_schema.schema"},
	{chatCall, `{` + hi + `,"response_format":{"type":"regex"}}`, "response_format.value"},
	{chatCall, `{` + hi + `,"modalities":["text","audio"]}`, "modalities"},
	{chatCall, `{` + hi + `,"chat_template":"{{ x }}"}`, "chat_template"},
	{chatCall, `{` + hi + `,"chat_template_kwargs":{"a":1}}`, "chat_template_kwargs"},
	{chatCall, `{` + hi + `,"continue_final_message":true}`, "continue_final_message"},
	{textCall, `{}`, "prompt"},
	{textCall, `{"prompt":""}`, "prompt"},
	{textCall, `{"prompt":["a",""]}`, "prompt"},
	{textCall, `{"prompt":[1,2,3]}`, "prompt"},
	{textCall, `{"prompt":[[1,2],[3]]}`, "prompt"},
	{textCall, `{"prompt":{"a":1}}`, "prompt"},
	{textCall, `{"prompt":["a","b"],"n":100}`, "n"},
	{textCall, `{"prompt":"a","suffix":"b"}`, "suffix"},
	{textCall, `{"prompt":"a","best_of":2}`, "best_of"},
	{textCall, `{"prompt":"a","echo":"yes"}`, "echo"},
	{textCall, `{"prompt":"a","echo":true,"logprobs":1}`, "logprobs"},
	{textCall, `{"prompt":"a","logprobs":6}`, "logprobs"},
	{textCall, `{"prompt":"a","logprobs":true}`, "logprobs"},
	{chatCall, `null`, ""},
	{chatCall, `[]`, ""},
	{chatCall, `{"messages"`, ""},
}

func TestReadTGI_InvalidCalls(t *testing.T) {
	for _, c := range wrongCalls {
		_, err := openai.ReadTGI(c.call, []byte(c.body), llama(), 0)
		p, ok := errors.AsType[*openai.Problem](err)
		if !ok || p.Status != 400 || p.Param != c.param || p.Code == "" || p.Message == "" {
			t.Errorf("%.120s: got %+v, want param %s", c.body, p, c.param)
		}
	}
	if _, err := openai.ReadTGI(openai.ParseCall("/embeddings"), []byte(`{"input":"x"}`), llama(), 0); err == nil || !strings.Contains(err.Error(), "/embeddings") {
		t.Errorf("embeddings: %v", err)
	}
}

// TestReadTGI_ErrorsAreSilent checks that logged errors contain
// neither values of a request nor texts of a template.
func TestReadTGI_ErrorsAreSilent(t *testing.T) {
	m := llama()
	m.Prompt = func(json.RawMessage) (string, error) { return "", errors.New("roles must alternate, got canary") }
	for _, body := range []string{
		`{` + hi + `}`, `{"messages":["canary"]}`, `{"messages":[{"role":"user","content":[{"type":"canary"}]}]}`,
		`{` + hi + `,"temperature":"canary"}`, `{` + hi + `,"stop":["canary","b","c","d","e"]}`, `{` + hi + `,"tool_choice":"canary"}`, `{canary`,
	} {
		_, err := openai.ReadTGI(chatCall, []byte(body), m, 0)
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", body, err)
		}
	}
	_, err := openai.ReadTGI(chatCall, []byte(`{`+hi+`}`), m, 0)
	if p, _ := errors.AsType[*openai.Problem](err); p == nil || p.Param != "messages" || !strings.Contains(p.Message, "roles must alternate") {
		t.Errorf("the client is not told what the template says: %+v", p)
	}
}

func TestReadTGI_PrompterProblem(t *testing.T) {
	m := llama()
	want := &openai.Problem{Status: 503, Code: "no_template", Message: "there is no template yet"}
	m.Prompt = func(json.RawMessage) (string, error) { return "", fmt.Errorf("prompt: %w", want) }
	if _, err := openai.ReadTGI(chatCall, []byte(`{`+hi+`}`), m, 0); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestReadTGI_IDs(t *testing.T) {
	for call, prefix := range map[openai.Call]string{chatCall: "chatcmpl-", textCall: "cmpl-"} {
		body := []byte(`{"prompt":"x",` + hi + `}`)
		a, err := openai.ReadTGI(call, body, llama(), 0)
		b, _ := openai.ReadTGI(call, body, llama(), 0)
		if err != nil || !strings.HasPrefix(a.ID, prefix) || len(a.ID) < len(prefix)+20 || a.ID == b.ID {
			t.Errorf("got %v, %v", a, err)
		}
	}
}
