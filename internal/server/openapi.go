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
	"dstack/internal/spec"
)

// Where the description of the API is. docsPath is where the reference has
// its own; neither is checked for the client's version.
const (
	openapiPath = "/api/openapi.json"
	docsPath    = "/api/docs"
)

var description = sync.OnceValues(func() ([]byte, error) { return json.Marshal(describeAPI()) })

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	text, err := description()
	if err != nil {
		s.respondError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, text)
}

// aliases is how types that write themselves look on the wire.
var aliases = map[reflect.Type]reflect.Type{
	reflect.TypeFor[json.RawMessage]():  reflect.TypeFor[any](),
	reflect.TypeFor[api.Timestamp]():    reflect.TypeFor[timeSchema](),
	reflect.TypeFor[wire.Null]():        reflect.TypeFor[any](),
	reflect.TypeFor[spec.Env]():         reflect.TypeFor[map[string]string](),
	reflect.TypeFor[spec.Retry]():       reflect.TypeFor[any](), // a bool or a mapping
	reflect.TypeFor[spec.MaxDuration](): reflect.TypeFor[string](),
	reflect.TypeFor[spec.Model]():       reflect.TypeFor[map[string]any](),
	reflect.TypeFor[spec.Resources]():   reflect.TypeFor[map[string]any](), // every spelling of a file
}

type timeSchema struct{}

// Schema describes a time.
func (timeSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

// describeAPI is the OpenAPI 3.1 document of the endpoints.
func describeAPI() *huma.OpenAPI {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	for t, alias := range aliases {
		schemas.RegisterTypeAlias(t, alias)
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info:    &huma.Info{Title: "dstack", Version: wire.Version(), Description: "The API of the dstack server. Global admins may call everything."},
		Paths:   map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer"}}},
	}
	for i := range endpoints {
		e := &endpoints[i]
		item := &huma.PathItem{Post: describeOperation(e, schemas)}
		if e.method == http.MethodGet {
			item = &huma.PathItem{Get: describeOperation(e, schemas)}
		}
		doc.Paths[e.path] = item
	}
	return doc
}

// schemaName keeps types of the same name in two rooms apart.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if room := path.Base(t.PkgPath()); room != "." && room != "api" {
		return strings.ToUpper(room[:1]) + room[1:] + name
	}
	return name
}

func describeOperation(e *apiCall, schemas huma.Registry) *huma.Operation {
	op := &huma.Operation{
		Method: e.method, Path: e.path, Summary: e.about,
		Tags:      []string{areaOf(e.path)},
		Responses: map[string]*huma.Response{"200": {Description: "done", Content: describeContent(e.out, answerType(e), schemas)}},
	}
	op.OperationID = strings.Trim(strings.NewReplacer("/api/", "", "{", "", "}", "", "/", "_").Replace(e.path), "_")
	op.Responses["default"] = &huma.Response{Description: "refused: why, and what to do",
		Content: describeContent(reflect.TypeFor[api.ErrorBody](), "application/json", schemas)}
	if e.level != access.LevelNone {
		op.Security = []map[string][]string{{"token": {}}}
		op.Description = "For: " + string(e.level)
	}
	for part := range strings.SplitSeq(e.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			op.Parameters = append(op.Parameters, &huma.Param{Name: strings.TrimSuffix(name, "}"), In: "path", Required: true,
				Schema: &huma.Schema{Type: huma.TypeString}})
		}
	}
	describeBody(op, e, schemas)
	return op
}

func describeBody(op *huma.Operation, e *apiCall, schemas huma.Registry) {
	switch {
	case e.form == formUpload:
		op.Parameters = append(op.Parameters, &huma.Param{Name: "repo_id", In: "query", Required: true,
			Schema: &huma.Schema{Type: huma.TypeString}})
		file := &huma.Schema{Type: huma.TypeString, Format: "binary"}
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {
			Schema: &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"file": file}, Required: []string{"file"}}}}}
	case e.in != reflect.TypeFor[wire.Null]():
		op.RequestBody = &huma.RequestBody{Required: true, Content: describeContent(e.in, "application/json", schemas)}
	}
}

func answerType(e *apiCall) string {
	if e.form == formLines {
		return "application/x-ndjson"
	}
	return "application/json"
}

func describeContent(t reflect.Type, media string, schemas huma.Registry) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{media: {Schema: schemas.Schema(t, true, "")}}
}

// areaOf is what the calls of a path are about.
func areaOf(p string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(p, api.ProjectPrefix), "/api")
	area, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	return area
}
