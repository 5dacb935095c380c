package wire

import (
	"strings"
	"testing"

	"dstack/internal/api"
)

func TestFindTextFlaw(t *testing.T) {
	for document, want := range map[string]string{
		`{"a": "ä\u00e4\n\\u0000"}`: "", // the last one is a backslash and five letters
		`"\ud83d\ude00 \\ud83d"`:    "",
		"\"\xff\"":                  "the body is not UTF-8",
		`"\ud83d"`:                  "a text contains half of a surrogate pair",
		`"\ud83dx"`:                 "a text contains half of a surrogate pair",
		`"\ud83d\u0041"`:            "a text contains half of a surrogate pair",
		`"\ude00\ud83d"`:            "a text contains half of a surrogate pair",
		`{"\udc00": 1}`:             "a text contains half of a surrogate pair",
	} {
		if got := findTextFlaw([]byte(document)); got != want {
			t.Errorf("%q: %q, want %q", document, got, want)
		}
	}
}

// TestDecode_RefusesTextsThatADatabaseCannotHold has a rule of PostgreSQL, which applies to
// SQLite, too: a project moves from one to the other.
func TestDecode_RefusesTextsThatADatabaseCannotHold(t *testing.T) {
	_, err := decodeText[api.DeleteUsers](`{"users": ["a", "b\u0000c"], "new_owner": "\u0000"}`)
	if got, want := formatErrors(err), "[body users 1] value_error.text; [body new_owner] value_error.text"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	_, err = decodeText[map[string]any](`{"a\u0000": 1}`)
	if got := formatErrors(err); !strings.Contains(got, "value_error.text") {
		t.Errorf("in a name: %s", got)
	}
	_, err = decodeText[api.Username]("{\"username\": \"\xff\"}")
	if got, want := formatErrors(err), "[body] value_error.jsondecode"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecode_ReadsIntegersWithAFraction(t *testing.T) {
	for text, want := range map[string]int{"92": 92, "92.0": 92, "-3.00": -3, "1e3": 1000} {
		in, err := decodeText[api.RollbackRequest](`{"run_name": "a", "revision": ` + text + `}`)
		if err != nil || in.Revision != want {
			t.Errorf("%s: %d, %v", text, in.Revision, err)
		}
	}
	for _, text := range []string{"92.5", "12E-1", "1e17", "1e400", "9223372036854775808", "9223372036854775808.0", `"92.0"`, "true"} {
		_, err := decodeText[api.RollbackRequest](`{"run_name": "a", "revision": ` + text + `}`)
		if got, want := formatErrors(err), "[body revision] type_error.integer"; got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestDecode_MapsAndOptionalBodies(t *testing.T) {
	_, err := decodeText[api.FollowLogs](`{"run_name": "a", "after": {"x": "2024-01-01T00:00:00Z", "x": "2024-01-01T00:00:00Z", "y": 1}}`)
	if got, want := formatErrors(err), "[body after x] value_error.duplicate; [body after y] value_error.datetime"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for text, want := range map[string]string{"": "<nil>", "null": "<nil>", `{"a": null}`: "<nil>",
		"[]": "[body] type_error.dict", "{": "[body 1] value_error.jsondecode"} {
		if _, err := decodeText[*map[string]any](text); formatErrors(err) != want {
			t.Errorf("%q: %s, want %s", text, formatErrors(err), want)
		}
	}
}
