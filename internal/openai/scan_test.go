package openai_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dstack/internal/openai"
)

func TestFindModel(t *testing.T) {
	cases := []struct {
		body, want string
		err        error
	}{
		{`{"model":"m"}`, "m", nil},
		{" {\n\t\"model\" :\r\n \"org/m:1.5-instruct\" } \n", "org/m:1.5-instruct", nil},
		{`{"messages":[{"role":"user","content":"hi"}],"model":"m","n":1}`, "m", nil},
		{`{"model":"first","stream":true,"model":"last"}`, "last", nil},
		{`{"\u006dod\u0065l":"m"}`, "m", nil},
		{`{"\u006D\u006F\u0064\u0065\u006C":"m"}`, "m", nil},
		{`{"model":"a\"b\\\u00e9\ud83d\ude00"}`, "a\"b\\é😀", nil},
		{`{"model":"ünïcode"}`, "ünïcode", nil},
		{`{"messages":[{"model":"inner"}],"tools":{"model":"inner"},"model":"m"}`, "m", nil},
		{`{"x":"\"model\":\"no\"","model":"m"}`, "m", nil},
		{`{"model":"m","a":[[],{},[{}],-0.5e+10,true,false,null,"\/"]}`, "m", nil},
		{`{"model":"first","model":1}`, "", openai.ErrNoString},

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
		got, err := openai.FindModel([]byte(c.body))
		if got != c.want || !errors.Is(err, c.err) || (c.err == nil && err != nil) {
			t.Errorf("%.60s: got %q, %v; want %q, %v", c.body, got, err, c.want, c.err)
		}
	}
}

// TestFindModel_ErrorsAreSilent checks that errors, which are logged,
// contain nothing of a prompt.
func TestFindModel_ErrorsAreSilent(t *testing.T) {
	for _, body := range []string{`{"canary": canary}`, `{"model":"m","x":"\canary"}`, `{"x":"canary`, `canary`} {
		_, err := openai.FindModel([]byte(body))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// findWithEncodingJSON is FindModel by means of encoding/json.
func findWithEncodingJSON(body []byte) (string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return "", openai.ErrNotJSON
	}
	raw, ok := all["model"]
	if all == nil {
		return "", openai.ErrNotJSON // null
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

// FuzzFindModel compares the scanner with encoding/json.
func FuzzFindModel(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hello, how are you today?"}]}`,
		`{"a":{"model":[1,-2.5e3,null,true]},"\u006dodel":"\ud83d\ude00","model":"x"}`,
		`{"model":"a","model":2}`, `{"x":"\ud800"}`, `{}`, `[]`, `null`, `{"a":0.}`, `{"a":1e}`, "{\"m\x00\":1}",
		"{\"model\":\"\xff\"}", "{\"mod\xffel\":\"m\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := openai.FindModel(body)
		want, wantErr := findWithEncodingJSON(body)
		if got != want || !errors.Is(err, wantErr) || (wantErr == nil && err != nil) {
			t.Fatalf("%q: got %q, %v; encoding/json: %q, %v", body, got, err, want, wantErr)
		}
	})
}

func TestFindModel_Depth(t *testing.T) {
	for _, n := range []int{9998, 9999, 10000, 10001} {
		for _, kind := range []string{"[]", `{"a":}`} {
			open, end := kind[:len(kind)-1], kind[len(kind)-1:]
			inner := "1"
			body := []byte(`{"model":"m","n":` + strings.Repeat(open, n) + inner + strings.Repeat(end, n) + `}`)
			_, err := openai.FindModel(body)
			_, want := findWithEncodingJSON(body)
			if (err == nil) != (want == nil) {
				t.Errorf("%d deep %s: got %v, encoding/json: %v", n, kind, err, want)
			}
		}
	}
}

func BenchmarkFindModel(b *testing.B) {
	for _, size := range []int{300, 400_000} {
		body := []byte(fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"model":"org/m"}`, strings.Repeat("some words ", size/11)))
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := openai.FindModel(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestWantsStream(t *testing.T) {
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
		if got := openai.WantsStream([]byte(body)); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}
