package strictyaml

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// toAny turns a tree into what the standard library decodes, with numbers as json.Number.
func (n *Node) toAny() any {
	switch n.Kind {
	case Null:
		return nil
	case Bool:
		return n.Text == "true"
	case Int, Float:
		return json.Number(n.Text)
	case String:
		return n.Text
	case Sequence:
		list := []any{}
		for _, item := range n.Items {
			list = append(list, item.toAny())
		}
		return list
	case Mapping:
		object := map[string]any{}
		for _, pair := range n.Pairs {
			object[pair.Key.Text] = pair.Value.toAny()
		}
		return object
	}
	panic("an unknown kind")
}

// decodeAny decodes one document with the standard library.
func decodeAny(text string) (any, error) {
	var value any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	return value, json.Unmarshal([]byte(text), new(json.RawMessage)) // nothing may follow
}

// LoadJSON reads what the standard library reads.
func TestLoadJSON_AgreesWithStandardLibrary(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, text string) {
		want, err := decodeAny(text)
		found := &Problems{}
		n := LoadJSON([]byte(text), found)
		if (n == nil) != (err != nil) {
			t.Fatalf("%q: the standard library says %v, LoadJSON returns %v", text, err, n)
		}
		if n != nil && found.Any() {
			return // a key is there twice, which the standard library accepts
		}
		if n != nil && !reflect.DeepEqual(n.toAny(), want) {
			t.Fatalf("%q: %#v, want %#v", text, n.toAny(), want)
		}
	}
	for _, text := range []string{
		`null`, ` true `, `false`, "\t-1.5e+3\r\n", `0`, `""`, `"a\"b\\"`, `"\\"`, `"\u00e9\ud83d\ude00\ud800"`, "\"\xff\"", "\"é😀\"",
		`{}`, `[]`, `[ ]`, `{ }`, `[[],{}, [1 , 2],"x"]`, `{"a" : {"b":[true,null]} , "c":"}],"}`, `{"":0}`,
		``, ` `, `{`, `[1,]`, `{"a":1,}`, `{"a"}`, `nul`, `01`, `"a`, `1 2`, `{} x`, "\"a\nb\"", `{"a":1 "b":2}`,
	} {
		check(t, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		var value *rapid.Generator[any]
		value = rapid.Deferred(func() *rapid.Generator[any] {
			return rapid.OneOf(rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Float64Range(-1e9, 1e9).AsAny(), rapid.String().AsAny(),
				rapid.SliceOfN(value, 0, 3).AsAny(), rapid.MapOfN(rapid.String(), value, 0, 3).AsAny())
		})
		text, err := json.Marshal(value.Draw(t, "value"))
		if err != nil {
			t.Fatalf("%v", err)
		}
		mutated := []byte(text)
		if len(mutated) > 0 && rapid.Bool().Draw(t, "mutate") {
			mutated[rapid.IntRange(0, len(mutated)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		check(t, string(mutated))
	})
}
