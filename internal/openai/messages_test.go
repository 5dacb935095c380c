package openai_test

import (
	"encoding/json"
	"errors"
	"strconv"
	"testing"

	"dstack/internal/openai"
)

// TestReadTGI_TemplateVars checks the variables of the chat template and their
// order.
func TestReadTGI_TemplateVars(t *testing.T) {
	const end = `,"add_generation_prompt":true}`
	const none = `,"tools":null,"documents":null` + end
	tool := `{"type":"function","function":{"name":"f","parameters":{"z":1,"a":2}}}`
	cases := []struct{ name, body, want string }{
		{"as they came", `{"messages":[{"name":"bob","role":"user","content":"hi","z":1,"a":[2]}]}`,
			`{"messages":[{"name":"bob","role":"user","content":"hi","z":1,"a":[2]}]` + none},
		{"all roles", `{"messages":[{"role":"system","content":"s"},{"role":"developer","content":"d"},{"role":"user","content":"u"},{"role":"tool","tool_call_id":"c1","content":"t"}]}`,
			`{"messages":[{"role":"system","content":"s"},{"role":"developer","content":"d"},{"role":"user","content":"u"},{"role":"tool","tool_call_id":"c1","content":"t"}]` + none},
		{"parts are joined", `{"messages":[{"role":"user","content":[{"type":"text","text":"a<"},{"type":"text","text":" b"}]}]}`,
			`{"messages":[{"role":"user","content":"a< b"}]` + none},
		{"no parts are an empty text", `{"messages":[{"role":"user","content":[]}]}`, `{"messages":[{"role":"user","content":""}]` + none},
		{"a refusal is text", `{"messages":[{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}]}`,
			`{"messages":[{"role":"assistant","content":"no"}]` + none},
		{"an assistant may say nothing", `{"messages":[{"role":"assistant","content":null},{"role":"assistant"}]}`,
			`{"messages":[{"role":"assistant","content":null},{"role":"assistant"}]` + none},
		{"arguments become an object", `{"messages":[{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"z\": 1, \"a\": \"<\"}"}}]}]}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":{"z": 1, "a": "<"}}}]}]` + none},
		{"other values stay", `{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{"a":1}}},{"function":7},{}]}]}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{"a":1}}},{"function":7},{}]}]` + none},
		{"no arguments are an empty object", `{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":""}},{"function":{"arguments":" \n"}},{"function":{"arguments":null}},{"function":{"name":"f"}}]}]}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}},{"function":{"arguments":{}}},{"function":{"arguments":{}}},{"function":{"name":"f","arguments":{}}}]}]` + none},
		{"arguments that are a list", `{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"[1]"}}]}]}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":[1]}}]}]` + none},
		{"no calls stay", `{"messages":[{"role":"assistant","content":"x","tool_calls":null},{"role":"assistant","content":"x","tool_calls":[]}]}`,
			`{"messages":[{"role":"assistant","content":"x","tool_calls":null},{"role":"assistant","content":"x","tool_calls":[]}]` + none},
		{"tools", `{` + hi + `,"tools":[` + tool + `],"tool_choice":"auto"}`, `{` + hi + `,"tools":[` + tool + `],"documents":null` + end},
		{"tools that must not be called are not shown", `{` + hi + `,"tools":[` + tool + `],"tool_choice":"none"}`, `{` + hi + none},
		{"no tools", `{` + hi + `,"tools":[]}`, `{` + hi + none},
		{"documents", `{` + hi + `,"documents":[{"title":"t","text":"x"}]}`, `{` + hi + `,"tools":null,"documents":[{"title":"t","text":"x"}]` + end},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got string
			m := llama()
			m.Prompt = func(vars json.RawMessage) (string, error) { got = string(vars); return "x", nil }
			if _, err := openai.ReadTGI(chatCall, []byte(c.body), m, 0); err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if !json.Valid([]byte(got)) {
				t.Error("no JSON")
			}
		})
	}
}

// A text of arguments that is no JSON is refused with its place.
func TestReadTGI_BadArguments(t *testing.T) {
	for _, text := range []string{"not {", "{", "{}{}", "{'a': 1}"} {
		body := `{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":""}},` +
			`{"function":{"name":"f","arguments":` + strconv.Quote(text) + `}}]}]}`
		m := llama()
		m.Prompt = func(json.RawMessage) (string, error) { return "x", nil }
		_, err := openai.ReadTGI(chatCall, []byte(body), m, 0)
		problem, ok := errors.AsType[*openai.Problem](err)
		if !ok || problem.Status != 400 || problem.Param != "messages[1].tool_calls[1].function.arguments" {
			t.Errorf("%s: %+v", text, err)
		}
	}
}

func TestReadTGI_BOS(t *testing.T) {
	for bos, want := range map[string]string{"<s>": `"inputs":"<s>x"`, "": `"inputs":"<s><s>x"`} {
		m := llama()
		m.BOS = bos
		m.Prompt = func(json.RawMessage) (string, error) { return "<s><s>x", nil }
		body := string(mustRead(t, chatCall, `{`+hi+`}`, m).Body(0))
		if want := `{` + want + `,`; body[:len(want)] != want {
			t.Errorf("BOS %q: got %s", bos, body)
		}
	}
}
