package server

import (
	"encoding/json"
	"net/http"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
	"dstack/internal/spec"
)

const (
	openapiPath = "/api/openapi.json" // the OpenAPI document of this API
	docsPath    = "/api/docs"         // the documentation page of 0.18.10; its version check is skipped
)

// openAPIDocuments returns the OpenAPI document of each dialect as JSON. It is built only once.
var openAPIDocuments = map[wire.Dialect]func() ([]byte, error){
	wire.Dialect018: sync.OnceValues(func() ([]byte, error) { return json.Marshal(describeAPI(wire.Dialect018)) }),
	wire.Dialect022: sync.OnceValues(func() ([]byte, error) { return json.Marshal(describeAPI(wire.Dialect022)) }),
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request, dialect wire.Dialect) {
	text, err := openAPIDocuments[dialect]()
	if err != nil {
		s.respondError(w, r, err)
		return
	}
	writeEncodedJSON(w, http.StatusOK, text)
}

// schemaAliases maps types with their own JSON encoding to types that have the
// same schema.
var schemaAliases = map[reflect.Type]reflect.Type{
	reflect.TypeFor[json.RawMessage]():     reflect.TypeFor[any](),
	reflect.TypeFor[api.Timestamp]():       reflect.TypeFor[timeSchema](),
	reflect.TypeFor[wire.Null]():           reflect.TypeFor[any](),
	reflect.TypeFor[spec.Env]():            reflect.TypeFor[map[string]string](),
	reflect.TypeFor[spec.Retry]():          reflect.TypeFor[any](), // a boolean or a mapping
	reflect.TypeFor[spec.MaxDuration]():    reflect.TypeFor[string](),
	reflect.TypeFor[spec.Model]():          reflect.TypeFor[map[string]any](),
	reflect.TypeFor[v022.CPU]():            reflect.TypeFor[any](), // its number, or a mapping with its type
	reflect.TypeFor[v022.Configuration]():  reflect.TypeFor[map[string]any](),
	reflect.TypeFor[v022.RequestProfile](): reflect.TypeFor[map[string]any](),
	reflect.TypeFor[spec.Resources]():      reflect.TypeFor[map[string]any](), // every spelling that a configuration may use
}

// timeSchema is a type whose schema is a time.
type timeSchema struct{}

// Schema returns the schema of a time.
func (timeSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

// describeAPI returns the OpenAPI 3.1 document of all operations of a dialect.
func describeAPI(dialect wire.Dialect) *huma.OpenAPI {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	for t, alias := range schemaAliases {
		schemas.RegisterTypeAlias(t, alias)
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "dstack", Version: dialect.Version(),
			Description: "The HTTP API of the dstack server. Global admins may call every operation."},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer"}}},
	}
	operations := dialectOperations[dialect]
	for i := range operations {
		operation := &operations[i]
		item := &huma.PathItem{Post: describeOperation(operation, schemas)}
		if operation.method == http.MethodGet {
			item = &huma.PathItem{Get: describeOperation(operation, schemas)}
		}
		doc.Paths[operation.path] = item
	}
	return doc
}

// schemaName returns the name of a type's schema. Types outside of package api
// get their package as a prefix, because packages may use the same name.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if pkg := path.Base(t.PkgPath()); pkg != "." && pkg != "api" {
		return strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	return name
}

func describeOperation(operation *apiOperation, schemas huma.Registry) *huma.Operation {
	op := &huma.Operation{
		Method: operation.method, Path: operation.path, Summary: operation.summary,
		Tags: []string{findTag(operation.path)},
	}
	op.Responses = map[string]*huma.Response{
		"200": {Description: "Success.",
			Content: describeContent(operation.responseType, responseMediaType(operation), schemas)},
		"default": {Description: "An error: its kind, a message, and a hint.",
			Content: describeContent(reflect.TypeFor[api.ErrorBody](), "application/json", schemas)},
	}
	if operation.format == formatWebSocket {
		op.Responses["101"] = &huma.Response{Description: "The messages follow.",
			Content: describeContent(operation.responseType, "application/json", schemas)}
		delete(op.Responses, "200")
	}
	names := strings.NewReplacer("/api/", "", "{", "", "}", "", "/", "_").Replace(operation.path)
	op.OperationID = strings.Trim(names, "_")
	if operation.level != access.LevelNone {
		op.Security = []map[string][]string{{"token": {}}}
		op.Description = "Required access: " + string(operation.level)
	}
	for part := range strings.SplitSeq(operation.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			op.Parameters = append(op.Parameters, &huma.Param{Name: strings.TrimSuffix(name, "}"), In: "path", Required: true,
				Schema: &huma.Schema{Type: huma.TypeString}})
		}
	}
	describeBody(op, operation, schemas)
	return op
}

func describeBody(op *huma.Operation, operation *apiOperation, schemas huma.Registry) {
	switch {
	case operation.format == formatMultipart:
		op.Parameters = append(op.Parameters, &huma.Param{Name: "repo_id", In: "query", Required: true,
			Schema: &huma.Schema{Type: huma.TypeString}})
		file := &huma.Schema{Type: huma.TypeString, Format: "binary"}
		form := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"file": file}, Required: []string{"file"}}
		op.RequestBody = &huma.RequestBody{Required: true,
			Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: form}}}
	case operation.requestType != reflect.TypeFor[wire.Null]():
		op.RequestBody = &huma.RequestBody{Required: true,
			Content: describeContent(operation.requestType, "application/json", schemas)}
	}
}

// responseMediaType returns the content type of an operation's response.
func responseMediaType(operation *apiOperation) string {
	if operation.format == formatLines {
		return "application/x-ndjson"
	}
	return "application/json"
}

func describeContent(t reflect.Type, media string, schemas huma.Registry) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{media: {Schema: schemas.Schema(t, true, "")}}
}

// findTag returns the OpenAPI tag of a path: users for /api/users/list, runs for
// /api/project/{project_name}/runs/get.
func findTag(urlPath string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(urlPath, api.ProjectPrefix), "/api")
	tag, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	return tag
}
