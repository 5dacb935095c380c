package openai_test

import (
	"strings"
	"testing"

	"dstack/internal/openai"
)

var usages = []struct {
	name, answer string
	want         openai.Tokens
}{
	{"a chat", `{"id":"x","choices":[{"message":{"content":"no \"usage\":{\"prompt_tokens\":9}"}}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":1}}}`, openai.Tokens{In: 3, Out: 5}},
	{"spaces", "{ \"usage\" : \n {\"prompt_tokens\" : 3 }\n}", openai.Tokens{In: 3}},
	{"a stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n", openai.Tokens{In: 1, Out: 2}},
	{"Anthropic's stream", "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":4}}\n\n", openai.Tokens{In: 7, Out: 4}},
	{"Anthropic's cached tokens", `{"content":[],"usage":{"input_tokens":1,"cache_read_input_tokens":32,"cache_creation_input_tokens":4,"output_tokens":2}}`, openai.Tokens{In: 37, Out: 2}},
	{"Anthropic's stream with cached tokens", "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"cache_read_input_tokens\":32,\"input_tokens\":1,\"output_tokens\":0}}}\n\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":4}}\n\n", openai.Tokens{In: 33, Out: 4}},
	{"OpenAI's cached tokens", `{"usage":{"input_tokens":33,"input_tokens_details":{"cached_tokens":32},"output_tokens":2}}`, openai.Tokens{In: 33, Out: 2}},
	{"llama.cpp's stream without usage", "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}],\"id\":\"x\",\"timings\":{\"cache_n\":32,\"prompt_n\":1,\"prompt_ms\":2.5,\"predicted_n\":2}}\n\ndata: [DONE]\n\n", openai.Tokens{In: 33, Out: 2}},
	{"its timings of two choices", "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":1,\"delta\":{}}],\"timings\":{\"prompt_n\":5,\"predicted_n\":2}}\n\ndata: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"delta\":{}}],\"timings\":{\"cache_n\":4,\"prompt_n\":1,\"predicted_n\":7}}\n\n", openai.Tokens{In: 10, Out: 9}},
	{"its timings of every token", "data: {\"choices\":[{\"finish_reason\":null}],\"timings\":{\"prompt_n\":5,\"predicted_n\":1}}\n\ndata: {\"choices\":[{\"finish_reason\":null}],\"timings\":{\"prompt_n\":5,\"predicted_n\":2}}\n\n", openai.Tokens{In: 5, Out: 2}},
	{"usage beside timings", "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":33},\"timings\":{\"cache_n\":30,\"prompt_n\":1,\"predicted_n\":2}}\n\n", openai.Tokens{In: 33, Out: 2}},
	{"usage of each choice", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: {\"choices\" : [ ],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n", openai.Tokens{In: 10, Out: 9}},
	{"usage at the end of each choice", "data: {\"choices\":[{\"index\":1,\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7}}\n\n", openai.Tokens{In: 8, Out: 9}},
	{"and of all", "data: {\"choices\":[{\"index\":1,\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9}}\n\n", openai.Tokens{In: 5, Out: 9}},
	{"usage before and after", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":0}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n", openai.Tokens{In: 5, Out: 7}},
	{"usage of every event, and of all", "data: {\"choices\":[{\"index\":0}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: {\"choices\":[{\"index\":1}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9}}\n\n", openai.Tokens{In: 5, Out: 9}},
	{"usage of every event, cut off", "data: {\"choices\":[{\"index\":0}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: {\"choices\":[{\"index\":0}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n", openai.Tokens{In: 5, Out: 3}},
	{"choices far before usage", "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("x", 3000) + "\"}}],\"usage\":{\"prompt_tokens\":5}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9}}\n\n", openai.Tokens{In: 5, Out: 9}},
	{"timings that are none", `{"timings":"good","data":{"timings":[1]}}`, openai.Tokens{}},
	{"none", `{"data":[1,2,3]}`, openai.Tokens{}},
	{"no object", `{"usage":"much"}`, openai.Tokens{}},
	{"a brace in a string", `{"usage":{"note":"}\"}{","prompt_tokens":2}}`, openai.Tokens{In: 2}},
	{"an object without end", `{"usage":{"note":"` + strings.Repeat("x", 5000) + `","prompt_tokens":2}}`, openai.Tokens{}},
	{"one after that", `{"usage":{"note":"` + strings.Repeat("x", 5000) + `"},"b":{"usage":{"prompt_tokens":2}}}`, openai.Tokens{In: 2}},
}

func TestTokenScanner(t *testing.T) {
	for _, c := range usages {
		for size := 1; size <= len(c.answer); size = size*2 + 1 {
			var s openai.TokenScanner
			for rest := c.answer; rest != ""; {
				n := min(size, len(rest))
				if took, err := s.Write([]byte(rest[:n])); took != n || err != nil {
					t.Fatalf("took %d of %d: %v", took, n, err)
				}
				rest = rest[n:]
			}
			if got := s.Tokens(); got != c.want {
				t.Errorf("%s in pieces of %d: %+v, want %+v", c.name, size, got, c.want)
			}
		}
	}
}

// FuzzTokenScanner compares an answer at once and in two parts with one whose objects encoding/json decodes.
func FuzzTokenScanner(f *testing.F) {
	for _, c := range usages {
		f.Add([]byte(c.answer), 3)
	}
	f.Fuzz(func(t *testing.T, answer []byte, cut int) {
		if strings.Contains(string(answer), strings.Repeat(" ", 1000)) {
			return // how much white space may be before a brace is no promise
		}
		var whole, parts, bytes openai.TokenScanner
		whole.Write(answer)
		at := 0
		if len(answer) > 0 {
			at = max(0, cut) % len(answer)
		}
		parts.Write(answer[:at])
		parts.Write(answer[at:])
		for i := range answer {
			bytes.Write(answer[i : i+1])
		}
		want := slowTokens(answer)
		if whole.Tokens() != want || parts.Tokens() != want || bytes.Tokens() != want {
			t.Errorf("%+v at once, %+v in parts, %+v byte by byte, want %+v", whole.Tokens(), parts.Tokens(), bytes.Tokens(), want)
		}
	})
}

func BenchmarkTokenScanner(b *testing.B) {
	event := "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n"
	for _, c := range []struct{ name, piece string }{
		{"an event", event},
		{"an event with usage", strings.Replace(event, "]}", "],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}", 1)},
		{"64 KiB of events", strings.Repeat(event, 64<<10/len(event))},
		{"64 KiB of text", strings.Repeat("some good words, ", 64<<10/17)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var s openai.TokenScanner
			piece := []byte(c.piece)
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				s.Write(piece)
			}
		})
	}
}

// TestTokenScanner_ImpossibleCounts checks that impossible counts do not
// overflow sums.
func TestTokenScanner_ImpossibleCounts(t *testing.T) {
	var s openai.TokenScanner
	_, _ = s.Write([]byte(`{"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":-3}}`))
	if got := s.Tokens(); got.In > 1<<31 || got.In < 0 || got.Out != 0 {
		t.Errorf("it found %+v", got)
	}
}
