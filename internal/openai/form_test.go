package openai_test

import (
	"bytes"
	"errors"
	"mime/multipart"
	"strings"
	"testing"

	"dstack/internal/openai"
)

// newForm returns a multipart form of fields, given as pairs of name and
// value, and a file.
func newForm(t testing.TB, fields ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	file, err := w.CreateFormFile("file", "speech.wav")
	if err != nil {
		t.Fatal(err)
	}
	file.Write([]byte("RIFF\x00\r\n--not a boundary\r\n"))
	for i := 0; i < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return w.FormDataContentType(), b.String()
}

func TestBodyScanner_Forms(t *testing.T) {
	kind, body := newForm(t, "language", "en", "model", "org/whisper")
	twoKind, two := newForm(t, "model", "a", "model", "b")
	noneKind, none := newForm(t, "language", "en")
	longKind, long := newForm(t, "model", strings.Repeat("x", 5000))
	manyKind, many := newForm(t, strings.Split(strings.Repeat("a b ", 1001), " ")[:2002]...)
	for _, c := range []struct {
		name, kind, body, want string
		err                    error
	}{
		{"a form", kind, body, "org/whisper", nil},
		{"two models", twoKind, two, "", openai.ErrTwoModels},
		{"a name in the long way", kind, strings.Replace(body, `name="language"`, `name="language"; name*=utf-8''model`, 1), "", openai.ErrNotForm},
		{"two names", kind, strings.Replace(body, `name="language"`, `name="language"; name="model"`, 1), "", openai.ErrNotForm},
		{"another disposition", kind, strings.Replace(body, `form-data; name="language"`, `inline; name="language"`, 1), "", openai.ErrNotForm},
		{"no disposition", kind, strings.Replace(body, "Content-Disposition: form-data; name=\"language\"", "A: b", 1), "", openai.ErrNotForm},
		{"two dispositions", kind, strings.Replace(body, `name="language"`, "name=\"language\"\r\nContent-Disposition: form-data; name=\"x\"", 1), "", openai.ErrNotForm},
		{"a file with a long name", kind, strings.Replace(body, `filename="speech.wav"`, `filename="; name*=a"; filename*=utf-8''b`, 1), "org/whisper", nil},
		{"JSON", "application/json", `{"model": "m"}`, "m", nil},
		{"JSON that nobody calls so", "", `{"model": "m"}`, "m", nil},
		{"a form without a model", noneKind, none, "", openai.ErrNoModel},
		{"a name without end", longKind, long, "", openai.ErrNoString},
		{"fields without end", manyKind, many, "", openai.ErrNotForm},
		{"a form cut short", kind, body[:len(body)/2], "", openai.ErrNotForm},
		{"no boundary", "multipart/form-data", body, "", openai.ErrNotForm},
		{"JSON called a form", kind, `{"model": "m"}`, "", openai.ErrNotForm},
		{"a form called JSON", "application/json", body, "", openai.ErrNotJSON},
	} {
		got, err := findModel(t, c.kind, []byte(c.body))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func FuzzBodyScanner_Forms(f *testing.F) {
	kind, body := newForm(f, "model", "m")
	f.Add(kind, []byte(body))
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--x--"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		if name, err := findModel(t, kind, body); err == nil && name == "" {
			t.Error("no model and no error")
		}
	})
}
