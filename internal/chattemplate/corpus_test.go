package chattemplate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
	"dstack/internal/jinja"
	"dstack/internal/jinja/jinjatest"
)

// noon is the time at which the oracle renders.
var noon = time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC)

// variants change the messages of a conversation into what clients send as well.
var variants = []struct {
	name   string
	change func(message) message
}{
	{"as it is", func(m message) message { return m }},
	{"nulls", func(m message) message { // as an answer that the openai SDK dumps
		for _, name := range []string{"content", "name", "tool_calls", "function_call", "audio", "annotations", "refusal", "reasoning"} {
			if m.get(name) == nil {
				m = append(m, field{name, json.RawMessage("null")})
			}
		}
		return m
	}},
	{"reasoning", reasonAs("reasoning")},
	{"reasoning_content", reasonAs("reasoning_content")},
	{"parts", func(m message) message {
		for i, f := range m {
			if f.name == "content" && f.value[0] == '"' {
				m[i].value = json.RawMessage(`[{"type":"text","text":` + string(f.value) + `}]`)
			}
		}
		return m
	}},
}

// reasonAs returns a change that gives assistants reasoning by a name.
func reasonAs(name string) func(message) message {
	return func(m message) message {
		if string(m.get("role")) != `"assistant"` {
			return m
		}
		return append(m, field{name, json.RawMessage(`"First, I think."`)})
	}
}

// TestPublishedTemplates_AsInTransformers renders every conversation, in every
// variant, with every template of the corpus. The prompt equals that of
// apply_chat_template byte for byte, and a render fails if that fails. Only a
// conversation without messages renders here alone.
func TestPublishedTemplates_AsInTransformers(t *testing.T) {
	root := corpusDir(t)
	oracle := jinjatest.Start(t)
	conversations := readAll(t, filepath.Join(root, "conversations", "*.json"))
	total := 0
	for name, source := range readAll(t, filepath.Join(root, "templates", "*.jinja")) {
		template, compileErr := chattemplate.Compile(dstack.ChatTemplate{Default: string(source)})
		for title, conversation := range conversations {
			seen := map[string]bool{}
			for _, v := range variants {
				chat := changeMessages(t, conversation, v.change)
				if seen[string(chat)] {
					continue // the variant changes nothing
				}
				seen[string(chat)] = true
				want := oracle.Ask(t, jinjatest.Question{Template: string(source), Chat: chat})
				got, err := "", compileErr
				if err == nil {
					got, err = template.Render(t.Context(), chat, noon)
				}
				if strings.Contains(want.Error, "Cannot apply chat template to an empty conversation") {
					continue
				}
				total++
				if problem := findProblem(want, got, err); problem != "" {
					t.Errorf("%s, %s, %s: %s", name, title, v.name, problem)
				}
			}
		}
	}
	t.Logf("%d renders", total)
	if total < 10_000 {
		t.Error("the corpus has become smaller")
	}
}

// findProblem compares a render with that of transformers.
func findProblem(want jinjatest.Answer, got string, err error) string {
	failed, isOurs := errors.AsType[*jinja.Error](err)
	switch {
	case err == nil && want.OK && got == want.Output:
		return ""
	case err == nil && want.OK:
		i := 0
		for i < min(len(got), len(want.Output)) && got[i] == want.Output[i] {
			i++
		}
		return "the prompt is " + excerpt(got, i) + ", not " + excerpt(want.Output, i)
	case err == nil:
		return "it renders; transformers: " + want.Kind + ": " + want.Error
	case want.OK || !isOurs:
		return "it fails: " + err.Error()
	case failed.Kind != want.Kind || failed.Kind == jinja.KindRaise && failed.Message != want.Error:
		return "it fails with " + failed.Kind + ": " + failed.Message + "; transformers: " + want.Kind + ": " + want.Error
	}
	return ""
}

func excerpt(text string, at int) string {
	quoted, _ := json.Marshal(text[max(0, at-60):min(len(text), at+60)])
	return string(quoted)
}

// corpusDir returns the folder of the shared collection of chat templates. It lies
// beside the checkout and is not part of it.
func corpusDir(t *testing.T) string {
	t.Helper()
	parent := os.Getenv("DSTACK_CORPUS")
	for up := filepath.Join("..", ".."); parent == "" && strings.Count(up, "..") < 8; up = filepath.Join(up, "..") {
		if dir := filepath.Join(up, "shared", "corpus"); isFolder(dir) {
			parent = dir
		}
	}
	root := filepath.Join(parent, "chat_templates")
	if !isFolder(root) {
		t.Skip("needs corpus: the corpus of chat templates is not beside the checkout; set DSTACK_CORPUS to where it is")
	}
	return root
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// readAll returns the contents of files by their names without extension.
func readAll(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(file)
		all[strings.TrimSuffix(base, filepath.Ext(base))] = text
	}
	return all
}

// message is a JSON object that keeps the order of its fields.
type message []field

type field struct {
	name  string
	value json.RawMessage
}

func (m message) get(name string) json.RawMessage {
	if i := slices.IndexFunc(m, func(f field) bool { return f.name == name }); i >= 0 {
		return m[i].value
	}
	return nil
}

func (m *message) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		f := field{name: name.(string)}
		if err := d.Decode(&f.value); err != nil {
			return err
		}
		*m = append(*m, f)
	}
	return nil
}

func (m message) MarshalJSON() ([]byte, error) {
	fields := make([]string, 0, len(m))
	for _, f := range m {
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		fields = append(fields, string(name)+":"+string(f.value))
	}
	return []byte("{" + strings.Join(fields, ",") + "}"), nil
}

// changeMessages returns a conversation with every message changed.
func changeMessages(t *testing.T, conversation []byte, change func(message) message) []byte {
	t.Helper()
	var all message
	var messages []message
	if err := errors.Join(json.Unmarshal(conversation, &all), json.Unmarshal(all.get("messages"), &messages)); err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		messages[i] = change(m)
	}
	text := bytes.Buffer{}
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(append([]message{}, messages...)); err != nil {
		t.Fatal(err)
	}
	for i, f := range all {
		if f.name == "messages" {
			all[i].value = text.Bytes()
		}
	}
	whole, err := all.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return whole
}
