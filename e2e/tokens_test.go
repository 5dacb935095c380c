package e2e

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// readEvents returns the data of a stream of server-sent events.
func (m *modelHarness) readEvents(t *testing.T, address, body string) []string {
	t.Helper()
	a := m.withT(t).expectResponse("POST", address, m.token, body, 200)
	var all []string
	for line := range strings.Lines(a.body) {
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			all = append(all, strings.TrimSpace(data))
		}
	}
	return all
}

// testOpenAITokens checks that the gateway passes on a stream event by event.
func (m *modelHarness) testOpenAITokens(t *testing.T) {
	body := encodeJSON(t, map[string]any{"model": openaiModel, "messages": hiMessages, "max_tokens": 60, "temperature": 0, "seed": 1,
		"stream": true, "cache_prompt": false, "stream_options": map[string]bool{"include_usage": true}})
	path := "/chat/completions"
	direct, through := m.readEvents(t, m.directURL+path, body), m.readEvents(t, m.gatewayURL()+path, body)
	if len(direct) < 20 || len(direct) != len(through) {
		t.Fatalf("the server sent %d events, the gateway %d", len(direct), len(through))
	}
	for i := range direct {
		if d, g := comparableEvent(t, direct[i]), comparableEvent(t, through[i]); !reflect.DeepEqual(d, g) {
			t.Errorf("event %d:\ngot  %s\nwant %s", i, through[i], direct[i])
		}
	}
	if got, want := decodeDeltas(t, through), decodeDeltas(t, direct); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

var hiMessages = newMessages("Say hi.")

// comparableEvent decodes an event and removes the fields that differ between
// requests.
func comparableEvent(t *testing.T, data string) any {
	t.Helper()
	if data == "[DONE]" {
		return data
	}
	var event map[string]any
	if err := json.Unmarshal([]byte(data), &event); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	for _, name := range []string{"id", "created", "timings"} {
		delete(event, name)
	}
	return event
}

// decodeDeltas returns the texts of a stream's events.
func decodeDeltas(t *testing.T, events []string) (all []string) {
	t.Helper()
	for _, data := range events {
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if data == "[DONE]" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		for _, c := range chunk.Choices {
			if c.Delta.Content != "" {
				all = append(all, c.Delta.Content)
			}
		}
	}
	return all
}

// testTGITokens checks that each token of TGI becomes one event.
func (m *modelHarness) testTGITokens(t *testing.T) {
	const prompt = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
		"<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
	var want []string
	special := 0
	for _, data := range m.readEvents(t, m.tgiURL+"/generate_stream", encodeJSON(t, map[string]any{"inputs": prompt, "parameters": map[string]any{"max_new_tokens": 80, "details": true}})) {
		var event struct {
			Token struct {
				Text    string
				Special bool
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if event.Token.Special {
			special++
		} else {
			want = append(want, event.Token.Text)
		}
	}
	if len(want) < 5 || special != 1 {
		t.Fatalf("the model did not end its text: %q, %d special tokens", want, special)
	}
	got := decodeDeltas(t, m.readEvents(t, m.gatewayURL()+"/chat/completions", encodeJSON(t, map[string]any{"model": hubModel, "messages": hiMessages, "max_tokens": 80, "temperature": 0, "stream": true})))
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
