package wire

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

type exampleItem struct {
	Name string   `json:"name" pattern:"^a$"`
	Also []string `json:"also,omitempty"`
}

type example struct {
	Role  dstack.Role `json:"role"`
	Limit *int        `json:"limit,omitempty" minimum:"0" maximum:"5"`
	At    *time.Time  `json:"at"`
	Items []exampleItem
	List  []exampleItem `json:"list"`
	More  exampleItem   `json:"more,omitempty"`
}

// TestSchemas_FollowTheDecoder compares schemas of both directions with their text.
func TestSchemas_FollowTheDecoder(t *testing.T) {
	schemas := &Schemas{Definitions: map[string]Schema{}}
	schemas.Request(reflect.TypeFor[example]())
	schemas.Response(reflect.TypeFor[example]())
	for name, want := range map[string]string{
		"WireExampleRequest": `{"additionalProperties":false,"properties":{` +
			`"at":{"format":"date-time","type":["string","null"]},` +
			`"limit":{"format":"int64","maximum":5,"minimum":0,"type":["integer","null"]},` +
			`"list":{"items":{"$ref":"#/components/schemas/WireExampleItemRequest"},"type":"array"},` +
			`"more":{"anyOf":[{"$ref":"#/components/schemas/WireExampleItemRequest"},{"type":"null"}]},` +
			`"role":{"enum":["admin","user"],"type":"string"}},"required":["role","list"],"type":"object"}`,
		"WireExampleItemRequest": `{"additionalProperties":false,"properties":{"also":{"items":{"type":"string"},"type":["array","null"]},` +
			`"name":{"pattern":"^a$","type":"string"}},"required":["name"],"type":"object"}`,
		"WireExample": `{"additionalProperties":false,"properties":{` +
			`"at":{"format":"date-time","type":["string","null"]},` +
			`"limit":{"format":"int64","maximum":9223372036854775807,"minimum":-9223372036854775808,"type":["integer","null"]},` +
			`"list":{"items":{"$ref":"#/components/schemas/WireExampleItem"},"type":"array"},` +
			`"more":{"$ref":"#/components/schemas/WireExampleItem"},` +
			`"role":{"enum":["admin","user"],"type":"string"}},"required":["role","at","list"],"type":"object"}`,
	} {
		got, err := json.Marshal(schemas.Definitions[name])
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
		}
	}
}

// TestSchemas_OfErrors encodes an error of each kind and finds its fields in the schema of its
// status.
func TestSchemas_OfErrors(t *testing.T) {
	schemas, err := NewSchemas()
	if err != nil {
		t.Fatal(err)
	}
	for kind := range responses {
		status, body := BuildErrorResponse(&dstack.Error{Kind: kind, Message: "m", Hint: "h"})
		reference := schemas.ErrorSchema(status)["$ref"]
		if _, denied := body.(forbiddenBody); denied != (reference == definitionsPath+"DeniedResponse") {
			t.Errorf("%s: status %d has the schema %v", kind, status, reference)
		}
	}
	status, _ := BuildErrorResponse(ValidationErrors{{Loc: []any{"body"}, Msg: "m"}})
	if reference := schemas.ErrorSchema(status)["$ref"]; reference != definitionsPath+"ValidationErrorResponse" {
		t.Errorf("status %d has the schema %v", status, reference)
	}
}

// TestSchemas_OfConfigurations says that the schema of a configuration is that of a file.
func TestSchemas_OfConfigurations(t *testing.T) {
	schemas, err := NewSchemas()
	if err != nil {
		t.Fatal(err)
	}
	schemas.Request(reflect.TypeFor[api.RunSpecRequest]())
	spec, _ := schemas.Definitions["DstackRunSpecRequest"]["properties"].(Schema)
	configuration, _ := spec["configuration"].(Schema)
	if configuration["$ref"] != definitionsPath+"configuration.service" || schemas.Definitions["configuration.service"] == nil {
		t.Errorf("configuration: %v", configuration)
	}
}
