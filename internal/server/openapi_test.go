package server

import (
	"encoding/json"
	"strings"
	"testing"

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
