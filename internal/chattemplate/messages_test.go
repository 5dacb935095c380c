package chattemplate_test

import (
	"testing"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
)

// The right values are those of transformers 5.24.
func TestRender_Messages(t *testing.T) {
	p, err := chattemplate.Compile(dstack.ChatTemplate{Default: "{% for m in messages %}{{ m }}{% endfor %}"})
	if err != nil {
		t.Fatal(err)
	}
	for message, want := range map[string]string{
		`{"role":"assistant","content":"b","reasoning":"R"}`:                            "{'thinking': 'R', 'role': 'assistant', 'content': 'b', 'reasoning': 'R', 'reasoning_content': 'R'}",
		`{"reasoning_content":"A","reasoning":"B"}`:                                     "{'thinking': 'A', 'reasoning_content': 'A', 'reasoning': 'B'}",
		`{"thinking":"A","reasoning":"B"}`:                                              "{'thinking': 'A', 'reasoning': 'B', 'reasoning_content': 'A'}",
		`{"reasoning_content":"A","thinking":"B"}`:                                      "{'thinking': 'B', 'reasoning_content': 'A'}",
		`{"reasoning_content":null,"reasoning":"B"}`:                                    "{'thinking': 'B', 'reasoning': 'B', 'reasoning_content': 'B'}",
		`{"thinking":null,"reasoning":""}`:                                              "{'thinking': '', 'reasoning': '', 'reasoning_content': ''}",
		`{"role":"user","content":"b"}`:                                                 "{'role': 'user', 'content': 'b'}",
		`{"reasoning":null}`:                                                            "{}",
		`{"role":"assistant","content":null,"tool_calls":[{"id":null}],"refusal":null}`: "{'role': 'assistant', 'tool_calls': [{'id': None}]}",
		`{"content":[{"type":"text","text":null}],"name":null}`:                         "{'content': [{'type': 'text', 'text': None}]}",
		`"text"`: "text",
	} {
		got, err := p.Render(t.Context(), []byte(`{"messages":[`+message+`]}`), time.Now())
		if err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", message, got, want, err)
		}
	}
}
