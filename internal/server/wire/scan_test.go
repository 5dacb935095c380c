package wire

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// splitObject splits an object into the names and values that the standard library finds.
func TestSplitObject_AgreesWithStandardLibrary(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		var want map[string]json.RawMessage
		err := json.Unmarshal([]byte(text), &want)
		fields, ok := splitObject([]byte(text))
		if isObject := err == nil && want != nil; ok != isObject {
			t.Fatalf("%q: is an object: %v, want %v", text, ok, isObject)
		}
		if !ok {
			return
		}
		got := map[string]json.RawMessage{}
		for f := range fields {
			got[f.name] = f.value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{
		`{}`, ` { } `, `null`, `[1]`, `"a"`, `{"a":1}`, `{"a" : [1 , {"b":"}"}] , "c":"\"\\" ,"d":null}`, `{"a":{"b":{}},"\u0061b":-1.5e3 }`,
		"{\"a\":\n[ ]\t,\"b\":true}", "{\"\xff\":\"\xff\"}", `{"":""}`,
	} {
		check(t, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		var value *rapid.Generator[any]
		value = rapid.Deferred(func() *rapid.Generator[any] {
			return rapid.OneOf(rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.IntRange(-1000, 1000).AsAny(), rapid.String().AsAny(),
				rapid.SliceOfN(value, 0, 3).AsAny(), rapid.MapOfN(rapid.String(), value, 0, 3).AsAny())
		})
		text, err := json.MarshalIndent(rapid.MapOfN(rapid.String(), value, 0, 4).Draw(t, "object"), "", rapid.SampledFrom([]string{"", " "}).Draw(t, "indent"))
		if err != nil {
			t.Fatalf("%v", err)
		}
		check(t, string(text))
	})
}
