package jinja

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noon is the clock of the oracle that rendered the corpus.
var noon = time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC)

// corpus finds the shared collection of real chat templates, which lies
// beside the checkout and is no part of it.
func corpus(t testing.TB) string {
	t.Helper()
	root := os.Getenv("DSTACK_CORPUS")
	for up := filepath.Join("..", ".."); root == "" && strings.Count(up, "..") < 8; up = filepath.Join(up, "..") {
		if dir := filepath.Join(up, "shared", "corpus"); exists(dir) {
			root = dir
		}
	}
	root = filepath.Join(root, "chat_templates")
	if !exists(root) {
		t.Skip("needs corpus: the corpus of chat templates is not beside the checkout; set DSTACK_CORPUS to where it is")
	}
	return root
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// expected is what Python's jinja2 makes of a template and a conversation.
type expected struct {
	OK     bool
	Output string
	Kind   string
	Error  string
}

type conversation struct {
	name string
	json []byte
}

func (c conversation) vars(t testing.TB) *Dict {
	t.Helper()
	v, err := FromJSON(c.json)
	if err != nil {
		t.Fatal(err)
	}
	return v.(*Dict)
}

func conversations(t testing.TB, root string) []conversation {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "conversations", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no conversations", err)
	}
	var all []conversation
	for _, file := range files {
		all = append(all, conversation{strings.TrimSuffix(filepath.Base(file), ".json"), read(t, file)})
	}
	return all
}

func templates(t testing.TB, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "templates", "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatal("no templates", err)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every published template renders every conversation as Python does, byte
// for byte, and fails where Python fails.
func TestPublishedTemplatesRenderAsInPython(t *testing.T) {
	root := corpus(t)
	total, right := 0, 0
	for _, file := range templates(t, root) {
		name := strings.TrimSuffix(filepath.Base(file), ".jinja")
		want := map[string]expected{}
		if err := json.Unmarshal(read(t, filepath.Join(root, "expected", name+".json")), &want); err != nil {
			t.Fatal(err)
		}
		template, compileErr := Compile(string(read(t, file)), Limits{})
		for _, c := range conversations(t, root) {
			out, err := "", compileErr
			if err == nil {
				out, err = template.Render(t.Context(), c.vars(t), noon)
			}
			total++
			if problem := differs(want[c.name], out, err); problem != "" {
				t.Errorf("%s, %s: %s", name, c.name, problem)
				continue
			}
			right++
		}
	}
	t.Logf("%d of %d renders are as in Python", right, total)
}

func differs(want expected, out string, err error) string {
	var e *Error
	switch {
	case err == nil && !want.OK:
		return "rendered, but Python fails: " + want.Kind + ": " + want.Error
	case err == nil && out != want.Output:
		return firstDifference(out, want.Output)
	case err == nil:
		return ""
	case want.OK || !errors.As(err, &e):
		return "failed: " + err.Error()
	case e.Kind != want.Kind:
		return "failed as " + e.Kind + ": " + e.Error() + "\nPython: " + want.Kind + ": " + want.Error
	case e.Kind != KindSyntax && e.Message != want.Error:
		return "failed: " + e.Message + "\nPython: " + want.Error
	}
	return ""
}

func firstDifference(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	around := func(s string) string { return s[max(0, i-60):min(len(s), i+60)] }
	q := func(s string) string { b, _ := json.Marshal(around(s)); return string(b) }
	return "output differs at byte " + formatDecimal(i) + "\n  got " + q(got) + "\n want " + q(want)
}
