package chattemplate_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
	"dstack/internal/jinja"
)

func TestRender(t *testing.T) {
	model := dstack.ChatTemplate{
		Default: "{{ bos_token }}{{ messages[0].content }}{{ loud }}{{ eos_token }}",
		Named:   []dstack.NamedTemplate{{Name: "tool_use", Source: "tools: {{ tools | length }}"}, {Name: "rag", Source: "rag"}},
		Tokens:  map[string]string{"bos_token": "<s>", "eos_token": "</s>"},
		Kwargs:  json.RawMessage(`{"loud": "!", "eos_token": "</k>"}`),
	}
	p, err := chattemplate.Compile(model)
	if err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		`{"messages": [{"content": "a"}]}`:                                      "<s>a!</k>",
		`{"messages": [{"content": "a"}], "bos_token": "<x>", "tools": null}`:   "<x>a!</k>",
		`{"messages": [{"content": "a"}], "tools": [{"type": "function"}, {}]}`: "tools: 2",
	} {
		got, err := p.Render(t.Context(), []byte(request), time.Now())
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v, not %q", request, got, err, want)
		}
	}
	for _, bad := range []string{"[]", "{", ""} {
		if got, err := p.Render(t.Context(), []byte(bad), time.Now()); err == nil {
			t.Errorf("%q gives %q", bad, got)
		}
	}
}

func TestRender_Errors(t *testing.T) {
	_, err := chattemplate.Compile(dstack.ChatTemplate{Default: "a\n{% if %}"})
	if wrong, ok := errors.AsType[*jinja.Error](err); !ok || wrong.Kind != jinja.KindSyntax || wrong.Line != 2 {
		t.Errorf("it is %v", err)
	}
	_, err = chattemplate.Compile(dstack.ChatTemplate{Default: "a", Named: []dstack.NamedTemplate{{Name: "rag", Source: "{{"}}})
	if wrong, ok := errors.AsType[*jinja.Error](err); !ok || wrong.Line != 1 || !strings.Contains(err.Error(), "rag") {
		t.Errorf("it is %v", err)
	}
	if _, err := chattemplate.Compile(dstack.ChatTemplate{Default: "a", Kwargs: json.RawMessage("[]")}); err == nil {
		t.Error("kwargs may be a list")
	}
	only, err := chattemplate.Compile(dstack.ChatTemplate{Named: []dstack.NamedTemplate{{Name: "rag", Source: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := only.Render(t.Context(), []byte("{}"), time.Now()); !errors.Is(err, chattemplate.ErrNoDefault) {
		t.Errorf("it is %v", err)
	}
}

// TestRender_OwnLists checks that concurrent renders do not share lists, which
// templates can change.
func TestRender_OwnLists(t *testing.T) {
	p, err := chattemplate.Compile(dstack.ChatTemplate{
		Default: "{{ always.pop() }}{{ always | length }}{{ messages.pop() }}",
		Kwargs:  json.RawMessage(`{"always": [1, 2, 3]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if got, err := p.Render(t.Context(), []byte(`{"messages": ["m"]}`), time.Now()); got != "32m" || err != nil {
					t.Errorf("it is %q, %v, want 32m", got, err)
				}
			}
		})
	}
	all.Wait()
}
