package server

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

func TestDescribeAPI_ContainsEveryOperation(t *testing.T) {
	for dialect, operations := range dialectOperations {
		t.Run(string(dialect), func(t *testing.T) { testDescription(t, dialect, operations) })
	}
}

func testDescription(t *testing.T, dialect wire.Dialect, operations []apiOperation) {
	text, err := encodeOpenAPI(dialect)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string                     `json:"operationId"`
			Responses   map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	seen := map[string]string{}
	for _, e := range operations {
		op, ok := doc.Paths[e.path][strings.ToLower(e.method)]
		if !ok {
			t.Errorf("%s %s is not described", e.method, e.path)
			continue
		}
		if other := seen[op.OperationID]; other != "" || op.OperationID == "" {
			t.Errorf("%s and %s have the same operation ID %q", e.path, other, op.OperationID)
		}
		seen[op.OperationID] = e.path
	}
	// Every referenced schema exists.
	for _, part := range strings.Split(string(text), `"$ref":"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if _, ok := doc.Components.Schemas[name]; !ok {
			t.Errorf("the schema %s is missing", name)
		}
	}
}

// TestDescribeAPI_NamesEveryStatus calls the API for each status of errors, and looks for it in the document.
func TestDescribeAPI_NamesEveryStatus(t *testing.T) {
	h := newTestServer(t)
	member := h.createUser("member", dstack.RoleUser)
	for _, c := range []struct {
		token, path, body string
		status            int
	}{
		{h.admin, api.ProjectPrefix + "/runs/get", `{"run_name": "none"}`, 400},
		{"", api.ProjectPrefix + "/runs/get", `{"run_name": "none"}`, 403},
		{member, "/api/users/create", `{"username": "a", "global_role": "user"}`, 403},
		{member, "/api/projects/delete", `{"projects_names": ["main"]}`, 403},
		{member, api.ProjectPrefix + "/runs/get", `{"run_name": "none"}`, 404},
		{h.admin, "/api/users/get_user", `{"username": "` + strings.Repeat("a", maxBodyBytes) + `"}`, 413},
		{h.admin, "/api/users/get_user", `{}`, 422},
		{h.admin, api.ProjectPrefix + "/gateways/create", `{}`, 400},
	} {
		if a := h.callAs(c.token, c.path, c.body); a.status != c.status {
			t.Errorf("%s answered %d %.200s, want %d", c.path, a.status, a.text, c.status)
		}
		for _, operation := range apiOperations {
			if operation.path == c.path && !slices.Contains(listErrorStatuses(&operation), c.status) {
				t.Errorf("%s: the status %d is not described", c.path, c.status)
			}
		}
	}
}

// TestDescribeAPI_Patterns compares the patterns of names in the document with those that the handlers use.
func TestDescribeAPI_Patterns(t *testing.T) {
	for _, c := range []struct {
		body  reflect.Type
		field string
		want  string
	}{
		{reflect.TypeFor[api.PutUser](), "Username", userNamePattern.String()},
		{reflect.TypeFor[api.CreateProject](), "ProjectName", projectNamePattern.String()},
	} {
		field, _ := c.body.FieldByName(c.field)
		if got := field.Tag.Get("pattern"); got != c.want {
			t.Errorf("%v.%s: %s, want %s", c.body, c.field, got, c.want)
		}
	}
}
