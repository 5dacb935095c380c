package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dstack/internal/api"
)

func decodeText[In any](text string) (In, error) { return Decode[In]([]byte(text)) }

// formatErrors formats the locations and types of ValidationErrors.
func formatErrors(err error) string {
	found, ok := errors.AsType[ValidationErrors](err)
	if !ok {
		return fmt.Sprint(err)
	}
	parts := make([]string, 0, len(found))
	for _, c := range found {
		parts = append(parts, fmt.Sprintf("%v %s", c.Loc, c.Type))
	}
	return strings.Join(parts, "; ")
}

func TestDecode_ReportsLocations(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"an empty body", "", "[body] value_error.missing"},
		{"not JSON", "{", "[body 1] value_error.jsondecode"},
		{"two documents", "{} {}", "[body 4] value_error.jsondecode"},
		{"not an object", "[]", "[body] type_error.dict"},
		{"several errors", `{"username": 1, "x": 2}`, "[body username] type_error.string; [body x] value_error.extra; [body global_role] value_error.missing"},
		{"null for a required field", `{"username": null, "global_role": "user"}`, "[body username] type_error.none.not_allowed"},
		{"an invalid enum value", `{"username": "a", "global_role": "owner"}`, "[body global_role] type_error.enum"},
		{"a duplicate key", `{"username": "a", "username": "b", "global_role": "user"}`, "[body username] value_error.duplicate"},
		{"keys are case-sensitive", `{"Username": "a", "global_role": "user"}`, "[body Username] value_error.extra; [body username] value_error.missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decodeText[api.PutUser](c.body)
			if got := formatErrors(err); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDecode_ListsNumbersAndTimes(t *testing.T) {
	_, err := decodeText[api.SetMembers](`{"members": [{"username": "a", "project_role": "user"}, {"username": true}]}`)
	if got, want := formatErrors(err), "[body members 1 username] type_error.string; [body members 1 project_role] value_error.missing"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	_, err = decodeText[api.ListRuns](`{"limit": 101, "prev_submitted_at": "yesterday", "only_active": "yes"}`)
	want := "[body limit] value_error.number.not_le; [body prev_submitted_at] value_error.datetime; [body only_active] type_error.bool"
	if got := formatErrors(err); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	list, err := decodeText[api.ListRuns](`{"project_name": null, "prev_submitted_at": "2024-08-21T12:00:00.000001+02:00", "limit": 0}`)
	if err != nil || list.ProjectName != nil || list.PrevSubmittedAt.Format("15:04:05.000000") != "10:00:00.000001" || *list.Limit != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	naive, err := decodeText[api.ListRuns](`{"prev_submitted_at": "2024-08-21T12:00:00"}`)
	if err != nil || naive.PrevSubmittedAt.UTC().Hour() != 12 {
		t.Errorf("a time without an offset is UTC: %+v, %v", naive.PrevSubmittedAt, err)
	}
}

func TestDecode_Null(t *testing.T) {
	for _, body := range []string{"", "null", "{}", " \n"} {
		if _, err := decodeText[Null](body); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
	for _, body := range []string{`{"a": 1}`, "[]", "1", "x"} {
		if _, err := decodeText[Null](body); err == nil {
			t.Errorf("%q was accepted", body)
		}
	}
}

func TestDecode_ReportsLocationsInConfigurations(t *testing.T) {
	body := `{"run_spec": {"repo_id": "r", "repo_data": {}, "working_dir": ".", "configuration_path": "f",
		"configuration": {"type": "service", "port": 0, "commands": ["a"], "comands": []}, "profile": {"name": "p", "x": 1}, "ssh_key_pub": ""}}`
	_, err := decodeText[api.RunSpecRequest](body)
	got := formatErrors(err)
	for _, want := range []string{"[body run_spec configuration port]", "[body run_spec configuration comands]", "[body run_spec profile x]"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
}
