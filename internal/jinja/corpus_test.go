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

	"dstack/internal/jinja/jinjatest"
)

// noon is the time at which the oracle rendered the corpus.
var noon = time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC)

// corpusDir returns the directory of the shared collection of chat templates.
// It lies beside the checkout and is not part of it.
func corpusDir(t testing.TB) string {
	t.Helper()
	root := os.Getenv("DSTACK_CORPUS")
	for up := filepath.Join("..", ".."); root == "" && strings.Count(up, "..") < 8; up = filepath.Join(up, "..") {
		if dir := filepath.Join(up, "shared", "corpus"); fileExists(dir) {
			root = dir
		}
	}
	root = filepath.Join(root, "chat_templates")
	if !fileExists(root) {
		t.Skip("needs corpus: the corpus of chat templates is not beside the checkout; set DSTACK_CORPUS to where it is")
	}
	return root
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
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

func readConversations(t testing.TB, root string) []conversation {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "conversations", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no conversations", err)
	}
	var all []conversation
	for _, file := range files {
		all = append(all, conversation{strings.TrimSuffix(filepath.Base(file), ".json"), readFile(t, file)})
	}
	return all
}

func templateFiles(t testing.TB, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "templates", "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatal("no templates", err)
	}
	return files
}

func readFile(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPublishedTemplatesRenderAsInPython renders every conversation with every
// template of the corpus. The output equals Python's byte for byte, and a
// render fails if Python's fails.
func TestPublishedTemplatesRenderAsInPython(t *testing.T) {
	root := corpusDir(t)
	total, right := 0, 0
	for _, file := range templateFiles(t, root) {
		name := strings.TrimSuffix(filepath.Base(file), ".jinja")
		want := map[string]jinjatest.Answer{}
		if err := json.Unmarshal(readFile(t, filepath.Join(root, "expected", name+".json")), &want); err != nil {
			t.Fatal(err)
		}
		template, compileErr := Compile(string(readFile(t, file)), Limits{})
		for _, c := range readConversations(t, root) {
			out, err := "", compileErr
			if err == nil {
				out, err = template.Render(t.Context(), c.vars(t), noon)
			}
			total++
			if problem := findDifference(want[c.name], out, err); problem != "" {
				t.Errorf("%s, %s: %s", name, c.name, problem)
				continue
			}
			right++
		}
	}
	t.Logf("%d of %d renders are as in Python", right, total)
}

func findDifference(want jinjatest.Answer, out string, err error) string {
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
