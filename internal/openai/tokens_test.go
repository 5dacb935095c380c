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

func FuzzTokenScanner(f *testing.F) {
	for _, c := range usages {
		f.Add([]byte(c.answer), 3)
	}
	f.Fuzz(func(t *testing.T, answer []byte, cut int) {
		var whole, parts openai.TokenScanner
		whole.Write(answer)
		at := 0
		if len(answer) > 0 {
			at = max(0, cut) % len(answer)
		}
		parts.Write(answer[:at])
		parts.Write(answer[at:])
		if whole.Tokens() != parts.Tokens() {
			t.Errorf("%+v at once, %+v in parts", whole.Tokens(), parts.Tokens())
		}
	})
}

func BenchmarkTokenScanner(b *testing.B) {
	event := []byte("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n")
	var s openai.TokenScanner
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		s.Write(event)
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
