package server

import (
	"cmp"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
)

const (
	openapiPath = "/api/openapi.json" // the OpenAPI document of this API
	docsPath    = "/api/docs"         // the documentation page of 0.18.10; its version check is skipped
)

// openAPIDocuments returns the OpenAPI document of each dialect as JSON. It is built only once.
var openAPIDocuments = map[wire.Dialect]func() ([]byte, error){
	wire.Dialect018: sync.OnceValues(func() ([]byte, error) { return encodeOpenAPI(wire.Dialect018) }),
	wire.Dialect022: sync.OnceValues(func() ([]byte, error) { return encodeOpenAPI(wire.Dialect022) }),
}

func encodeOpenAPI(dialect wire.Dialect) ([]byte, error) {
	document, err := describeAPI(dialect)
	if err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request, dialect wire.Dialect) {
	text, err := openAPIDocuments[dialect]()
	if err != nil {
		s.respondError(w, r, err)
		return
	}
	writeEncodedJSON(w, http.StatusOK, text)
}

// apiDescription introduces the OpenAPI document.
const apiDescription = `The HTTP API of the dstack server.

A path that exists answers other methods with 405, and with the ones that it has in the header Allow; GET includes HEAD.
Bodies are JSON in UTF-8, at most 1 MB (4 MB with a configuration). A request may lack the header Content-Type.
Unknown, missing and repeated fields are refused with 422, each with its place. No text may contain U+0000.
The file name of an upload is the SHA-256 of its content, as 64 hexadecimal digits.
Errors that the state of the server causes, such as a name that does not exist, are 400; the field error.kind tells them apart.
A project that the caller may not see is 404. A missing or wrong token is 403.
Global admins may call every operation.

A client that names its version in the header X-API-VERSION gets the form of that version, which this path describes for
the same header. It gets the hint of an error in its message, too, and 400 instead of 403 for what the operation, and not
the token, does not allow. A version that the server does not speak is refused with 400.`

// describeAPI returns the OpenAPI 3.1 document of all operations of a dialect.
func describeAPI(dialect wire.Dialect) (wire.Schema, error) {
	schemas, err := wire.NewSchemas()
	if err != nil {
		return nil, err
	}
	paths, operations := wire.Schema{}, dialectOperations[dialect]
	for i := range operations {
		operation := &operations[i]
		paths[operation.path] = wire.Schema{strings.ToLower(operation.method): describeOperation(operation, schemas)}
	}
	return wire.Schema{
		"openapi": "3.1.0",
		"info":    wire.Schema{"title": "dstack", "version": dialect.Version(), "description": apiDescription},
		"paths":   paths,
		"components": wire.Schema{"schemas": schemas.Definitions,
			"securitySchemes": wire.Schema{"token": wire.Schema{"type": "http", "scheme": "bearer"}}},
	}, nil
}

func describeOperation(operation *apiOperation, schemas *wire.Schemas) wire.Schema {
	op := wire.Schema{"summary": operation.summary, "tags": []string{findTag(operation.path)},
		"operationId": nameOperation(operation.path), "responses": describeResponses(operation, schemas)}
	if operation.level != access.LevelNone {
		op["security"] = []wire.Schema{{"token": []string{}}}
		op["description"] = "Required access: " + string(operation.level)
	}
	if parameters := describeParameters(operation); len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if body := describeBody(operation, schemas); body != nil {
		op["requestBody"] = body
	}
	return op
}

// nameOperation returns the operation ID of a path: project_project_name_runs_get for
// /api/project/{project_name}/runs/get.
func nameOperation(urlPath string) string {
	names := strings.NewReplacer("/api/", "", "{", "", "}", "", "/", "_").Replace(urlPath)
	return strings.Trim(names, "_")
}

func describeParameters(operation *apiOperation) []wire.Schema {
	var parameters []wire.Schema
	add := func(name, in string, schema wire.Schema) {
		parameters = append(parameters, wire.Schema{"name": name, "in": in, "required": true, "schema": schema})
	}
	for part := range strings.SplitSeq(operation.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			add(strings.TrimSuffix(name, "}"), "path", wire.Schema{"type": "string", "minLength": 1})
		}
	}
	for _, name := range operation.query {
		add(name, "query", wire.Schema{"type": "string", "minLength": 1})
	}
	return parameters
}

// describeBody returns the request body of an operation, nil if it has none.
func describeBody(operation *apiOperation, schemas *wire.Schemas) wire.Schema {
	content := func(media string, schema wire.Schema) wire.Schema {
		return wire.Schema{media: wire.Schema{"schema": schema}}
	}
	switch {
	case operation.method == http.MethodGet:
		return nil
	case operation.format == formatMultipart:
		file := wire.Schema{"type": "string", "contentMediaType": "application/octet-stream"}
		return wire.Schema{"required": true, "content": content("multipart/form-data",
			wire.Schema{"type": "object", "properties": wire.Schema{"file": file}, "required": []string{"file"},
				"additionalProperties": false})}
	case operation.optionalBody:
		return wire.Schema{"required": false, "content": content("application/json", wire.Schema{"type": []string{"object", "null"}})}
	case operation.requestType == reflect.TypeFor[wire.Null]():
		return wire.Schema{"required": false, "content": content("application/json",
			wire.Schema{"type": []string{"object", "null"}, "maxProperties": 0})}
	case operation.requestType.Implements(reflect.TypeFor[wire.OptionalBody]()):
		return wire.Schema{"required": false, "content": content("application/json",
			wire.Schema{"anyOf": []wire.Schema{schemas.Request(operation.requestType), {"type": "null"}}})}
	}
	return wire.Schema{"required": true, "content": content("application/json", schemas.Request(operation.requestType))}
}

// describeResponses returns the responses of an operation by status. Every status that it
// may have is among them.
func describeResponses(operation *apiOperation, schemas *wire.Schemas) wire.Schema {
	responses := wire.Schema{}
	add := func(status int, description, media string, schema wire.Schema) wire.Schema {
		response := wire.Schema{"description": description}
		if schema != nil {
			response["content"] = wire.Schema{media: wire.Schema{"schema": schema}}
		}
		responses[strconv.Itoa(status)] = response
		return response
	}
	switch {
	case operation.unsupported:
	case operation.format == formatWebSocket:
		add(http.StatusSwitchingProtocols, "A WebSocket. Its messages are described at ExecUpdate.", "", nil)
		schemas.Response(operation.responseType)
	case operation.format == formatConnection:
		add(http.StatusSwitchingProtocols, "The connection is that to the replica from now on.", "", nil)
	default:
		add(http.StatusOK, "Success.", responseMediaType(operation), schemas.Response(operation.responseType))
	}
	for _, status := range listErrorStatuses(operation) {
		response := add(status, errorDescriptions[status], "application/json", schemas.ErrorSchema(status))
		if status == http.StatusServiceUnavailable {
			response["headers"] = wire.Schema{"Retry-After": wire.Schema{"required": true, "schema": wire.Schema{"type": "integer"}}}
		}
	}
	return responses
}

var errorDescriptions = map[int]string{
	http.StatusBadRequest:            "Refused: something does not exist, or its state does not allow this.",
	http.StatusForbidden:             "The token is missing or wrong, or its user may not do this.",
	http.StatusNotFound:              "There is no such project that the caller may see.",
	http.StatusRequestEntityTooLarge: "The request is too large.",
	http.StatusUnsupportedMediaType:  "The body is of another type.",
	http.StatusUpgradeRequired:       "This operation needs a WebSocket.",
	http.StatusUnprocessableEntity:   "The request is not valid. All problems are listed.",
	http.StatusServiceUnavailable:    "Not now. Try again.",
	http.StatusGatewayTimeout:        "Another server did not answer in time.",
}

// listErrorStatuses returns the statuses of the errors that an operation may answer.
func listErrorStatuses(operation *apiOperation) []int {
	var statuses []int
	if strings.HasPrefix(operation.path, "/api/") {
		statuses = append(statuses, http.StatusBadRequest)
	}
	if operation.level != access.LevelNone {
		statuses = append(statuses, http.StatusForbidden, http.StatusServiceUnavailable)
	}
	if strings.Contains(operation.path, "{project_name}") {
		statuses = append(statuses, http.StatusNotFound)
	}
	if operation.format == formatWebSocket {
		statuses = append(statuses, http.StatusUpgradeRequired)
	}
	if operation.method == http.MethodPost {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
	}
	if operation.asksOtherServers {
		statuses = append(statuses, http.StatusGatewayTimeout)
	}
	return statuses
}

// responseMediaType returns the content type of an operation's response.
func responseMediaType(operation *apiOperation) string {
	if operation.format == formatLines {
		return "application/x-ndjson"
	}
	return "application/json"
}

// findTag returns the OpenAPI tag of a path: users for /api/users/list, runs for
// /api/project/{project_name}/runs/get.
func findTag(urlPath string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(urlPath, api.ProjectPrefix), "/api")
	tag, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	return cmp.Or(tag, "server")
}
