package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dstack/internal/openai"
)

// newBodyScanner returns a scanner that has scanned a body in pieces of a size; 0 stands for all at once.
func newBodyScanner(contentType string, body []byte, size int) *openai.BodyScanner {
	b := &openai.BodyScanner{}
	b.Begin(contentType)
	if size == 0 {
		size = max(len(body), 1)
	}
	for at := size; at < len(body); at += size {
		b.Scan(slices.Clone(body[:at])) // other memory each time
	}
	b.Scan(body)
	return b
}

// findModel returns the model that a body names, for a body that arrives at once and for one that arrives in pieces.
func findModel(t testing.TB, contentType string, body []byte) (string, error) {
	t.Helper()
	name, err := newBodyScanner(contentType, body, 0).Finish()
	size := 1 + len(body)/50
	inPieces, errInPieces := newBodyScanner(contentType, body, size).Finish()
	if name != inPieces || fmt.Sprint(err) != fmt.Sprint(errInPieces) {
		t.Errorf("%.60s: at once %q, %v; in pieces of %d %q, %v", body, name, err, size, inPieces, errInPieces)
	}
	return name, err
}

func TestBodyScanner(t *testing.T) {
	cases := []struct {
		body, want string
		err        error
	}{
		{`{"model":"m"}`, "m", nil},
		{" {\n\t\"model\" :\r\n \"org/m:1.5-instruct\" } \n", "org/m:1.5-instruct", nil},
		{`{"messages":[{"role":"user","content":"hi"}],"model":"m","n":1}`, "m", nil},
		{`{"models":["a"],"model":"m","a model":1}`, "m", nil},
		{`{"\u006dod\u0065l":"m"}`, "m", nil},
		{`{"\u006D\u006F\u0064\u0065\u006C":"m"}`, "m", nil},
		{`{"model":"a\"b\\\u00e9\ud83d\ude00"}`, "a\"b\\é😀", nil},
		{`{"model":"ünïcode"}`, "ünïcode", nil},
		{`{"messages":[{"model":"inner"}],"tools":{"model":"inner"},"model":"m"}`, "m", nil},
		{`{"x":"\"model\":\"no\"","model":"m"}`, "m", nil},
		{`{"model":"m","a":[[],{},[{}],-0.5e+10,true,false,null,"\/"]}`, "m", nil},
		{`{"model":"first","stream":true,"model":"last"}`, "", openai.ErrTwoModels},
		{`{"model":"m","model":"m"}`, "", openai.ErrTwoModels},
		{`{"model":"m","\u006dodel":"m"}`, "", openai.ErrTwoModels},
		{`{"model":"m","Model":"m"}`, "", openai.ErrTwoModels},
		{`{"model":1,"model":"m"}`, "", openai.ErrTwoModels},
		{`{"model":"m","model":"m"`, "", openai.ErrNotJSON},

		{`{}`, "", openai.ErrNoModel},
		{`{"Model":"m"}`, "", openai.ErrNoModel},
		{`{"messages":[{"model":"inner"}]}`, "", openai.ErrNoModel},
		{`{"model":""}`, "", openai.ErrNoModel},
		{`{"model":null}`, "", openai.ErrNoString},
		{`{"model":["m"]}`, "", openai.ErrNoString},

		{``, "", openai.ErrNotJSON},
		{`[]`, "", openai.ErrNotJSON},
		{`"model"`, "", openai.ErrNotJSON},
		{"\ufeff{}", "", openai.ErrNotJSON},
		{`{"model":"m"`, "", openai.ErrNotJSON},
		{`{"model":"m"}}`, "", openai.ErrNotJSON},
		{`{"model":"m",}`, "", openai.ErrNotJSON},
		{`{"model":"m" "n":1}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":01}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":[1,]}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":[1}}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":NaN}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":"\x"}`, "", openai.ErrNotJSON},
		{`{"model":"m","n":"\u12g4"}`, "", openai.ErrNotJSON},
		{"{\"model\":\"m\",\"n\":\"line\nbreak\"}", "", openai.ErrNotJSON},
		{"{\"model\":\"m\",\"n\":\"a long enough string with \x01 in it\"}", "", openai.ErrNotJSON},
		{`{model:"m"}`, "", openai.ErrNotJSON},
		{`{'model':'m'}`, "", openai.ErrNotJSON},
		{`model=m`, "", openai.ErrNotJSON},
		{`{"model":"m","n":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "", openai.ErrNotJSON},
	}
	for _, c := range cases {
		got, err := findModel(t, "application/json", []byte(c.body))
		if got != c.want || !errors.Is(err, c.err) || (c.err == nil && err != nil) {
			t.Errorf("%.60s: got %q, %v; want %q, %v", c.body, got, err, c.want, c.err)
		}
	}
}

// TestBodyScanner_ErrorsAreSilent checks that errors, which are logged,
// contain nothing of a prompt.
func TestBodyScanner_ErrorsAreSilent(t *testing.T) {
	for _, body := range []string{`{"canary": canary}`, `{"model":"m","x":"\canary"}`, `{"x":"canary`, `canary`} {
		_, err := findModel(t, "application/json", []byte(body))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// findWithEncodingJSON finds the model by means of encoding/json.
func findWithEncodingJSON(body []byte) (string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return "", openai.ErrNotJSON
	}
	raw, ok := all["model"]
	if all == nil {
		return "", openai.ErrNotJSON // null
	}
	if countModels(body) > 1 {
		return "", openai.ErrTwoModels
	}
	if !ok {
		return "", openai.ErrNoModel
	}
	if raw[0] != '"' {
		return "", openai.ErrNoString
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return "", openai.ErrNotJSON
	}
	if name == "" {
		return "", openai.ErrNoModel
	}
	return name, nil
}

// countModels counts the fields of an object that are named model in any case.
func countModels(object []byte) (n int) {
	d := json.NewDecoder(bytes.NewReader(object))
	_, _ = d.Token()
	for d.More() {
		name, _ := d.Token()
		if text, _ := name.(string); len(text) == len("model") && strings.EqualFold(text, "model") {
			n++
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return n
		}
	}
	return n
}

// FuzzBodyScanner compares the scanner with encoding/json.
func FuzzBodyScanner(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hello, how are you today?"}]}`,
		`{"a":{"model":[1,-2.5e3,null,true]},"\u006dodel":"\ud83d\ude00","model":"x"}`,
		`{"model":"a","model":2}`, `{"MODEL":"a","m\u006fdel":"b"}`, `{"x":"\ud800"}`, `{}`, `[]`, `null`, `{"a":0.}`, `{"a":1e}`, "{\"m\x00\":1}",
		"{\"model\":\"\xff\"}", "{\"mod\xffel\":\"m\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := findModel(t, "application/json", body)
		want, wantErr := findWithEncodingJSON(body)
		if got != want || !errors.Is(err, wantErr) || (wantErr == nil && err != nil) {
			t.Fatalf("%q: got %q, %v; encoding/json: %q, %v", body, got, err, want, wantErr)
		}
	})
}

func TestBodyScanner_Depth(t *testing.T) {
	for _, n := range []int{9998, 9999, 10000, 10001} {
		for _, kind := range []string{"[]", `{"a":}`} {
			open, end := kind[:len(kind)-1], kind[len(kind)-1:]
			inner := "1"
			body := []byte(`{"model":"m","n":` + strings.Repeat(open, n) + inner + strings.Repeat(end, n) + `}`)
			_, err := findModel(t, "application/json", body)
			_, want := findWithEncodingJSON(body)
			if (err == nil) != (want == nil) {
				t.Errorf("%d deep %s: got %v, encoding/json: %v", n, kind, err, want)
			}
		}
	}
}

func BenchmarkBodyScanner(b *testing.B) {
	code := strings.Repeat(`{\"role\":\"user\",\n    \"words\": [1, 2]}\n`, 5)
	messages := `{"role":"user","content":` + `"` + code + strings.Repeat("some words ", 20) + `"},`
	for _, c := range []struct{ name, messages string }{
		{"300 bytes", `{"role":"user","content":"` + strings.Repeat("some words ", 27) + `"}`},
		{"400 KB of text", `{"role":"user","content":"` + strings.Repeat("some words ", 400_000/11) + `"}`},
		{"400 KB of messages", strings.Repeat(messages, 400_000/len(messages)) + "{}"},
		{"400 KB of numbers", strings.Repeat("12345,", 400_000/6) + "1"},
	} {
		body := []byte(`{"messages":[` + c.messages + `],"model":"org/m"}`)
		var scanner openai.BodyScanner
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				scanner.Begin("application/json")
				scanner.Scan(body)
				if _, err := scanner.Finish(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestBodyScanner_WantsStream(t *testing.T) {
	cases := map[string]bool{
		`{"model":"m","stream":true}`:              true,
		"{ \"stream\" :\n true , \"model\":\"m\"}": true,
		`{"str\u0065am":true}`:                     true,
		`{"stream":false,"stream":true}`:           true,
		`{"stream":true,"stream":false}`:           false,
		`{"stream":1}`:                             false,
		`{"stream":"true"}`:                        false,
		`{"stream":null}`:                          false,
		`{"stream":{"x":true}}`:                    false,
		`{"messages":[{"stream":true}]}`:           false,
		`{"Stream":true,"streams":true}`:           false,
		`{}`:                                       false,
		``:                                         false,
		`{"stream":true`:                           false,
		`[true]`:                                   false,
	}
	for body, want := range cases {
		if got := newBodyScanner("", []byte(body), 3).WantsStream(); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}
