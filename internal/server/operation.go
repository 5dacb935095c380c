package server

import (
	"context"
	"net/http"
	"reflect"

	"dstack/internal/decide/access"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// Limits of request bodies.
const (
	maxBodyBytes    = 1 << 20
	maxRunBodyBytes = 4 << 20 // of requests that contain a configuration
	noBodyLimit     = 1 << 40 // for handlers that have a limit of their own
)

// apiOperation is one operation of the API: a method and a path, who may call
// it, and its handler.
type apiOperation struct {
	method, path string
	level        access.Level
	maxBody      int64 // in bytes
	summary      string
	requestType  reflect.Type // wire.Null: no body
	responseType reflect.Type // wire.Null: the body is null
	format       bodyFormat
	handle       func(*Server, *apiCall) error

	query            []string // the required parameters in the URL
	optionalBody     bool     // the body is any JSON object, or missing
	unsupported      bool     // it always fails
	asksOtherServers bool     // it may fail because another server, such as a git host, does not answer in time
}

// bodyFormat is the format of an operation's bodies.
type bodyFormat string

const (
	formatJSON      bodyFormat = ""
	formatLines     bodyFormat = "lines"     // the response is one JSON document per line
	formatMultipart bodyFormat = "multipart" // the request is a multipart form with a file
	formatWebSocket bodyFormat = "websocket" // the response has status 101; then both sides send messages
	// formatConnection: the response has status 101; then the connection is that to a replica.
	formatConnection bodyFormat = "connection"
)

// apiCall is one HTTP request for an operation, with its caller and project.
type apiCall struct {
	ctx       context.Context
	w         http.ResponseWriter
	r         *http.Request
	operation *apiOperation
	user      dstack.User    // zero if the operation needs no token
	project   dstack.Project // zero if the path names no project
	role      access.Project // the caller's role in the project

	process dstack.GatewayProcess // the caller, with level LevelGatewayProcess
}

// isGlobalAdmin reports whether the caller may see everything.
func (c *apiCall) isGlobalAdmin() bool { return c.user.GlobalRole == dstack.RoleAdmin }

// isProjectAdmin reports whether the caller may change the project.
func (c *apiCall) isProjectAdmin() bool {
	return access.Allow(access.LevelProjectAdmin, access.Caller{Known: true, Role: c.user.GlobalRole}, c.role) == access.Allowed
}

// newOperation returns an operation whose body is an In and whose response is
// an Out, both as JSON.
func newOperation[In, Out any](
	path string, level access.Level, handle func(*Server, *apiCall, In) (Out, error), summary string,
) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: level, maxBody: maxBodyBytes, summary: summary,
		requestType: reflect.TypeFor[In](), responseType: reflect.TypeFor[Out](),
		handle: func(s *Server, c *apiCall) error {
			in, err := decodeBody[In](c)
			if err != nil {
				return err
			}
			out, err := handle(s, c, in)
			if err != nil {
				return err
			}
			s.respondJSON(c.w, http.StatusOK, out)
			return nil
		}}
}

// answerIn returns a handler that answers in the form of a dialect.
func answerIn[In, Out, Body any](handle func(*Server, *apiCall, In) (Out, error), encode func(Out) Body) func(*Server, *apiCall, In) (Body, error) {
	return translateHandler(keepRequest[In], handle, func(_ In, out Out) Body { return encode(out) })
}

// keepRequest is the decode function of requests that have the form of the handler already.
func keepRequest[In any](in In) (In, error) { return in, nil }

// translateHandler returns a handler whose requests and answers have the form of a dialect: decode returns the request of the
// given handler, and encode its answer to the request.
func translateHandler[Request, In, Out, Body any](
	decode func(Request) (In, error), handle func(*Server, *apiCall, In) (Out, error), encode func(Request, Out) Body,
) func(*Server, *apiCall, Request) (Body, error) {
	return func(s *Server, c *apiCall, request Request) (body Body, err error) {
		in, err := decode(request)
		if err != nil {
			return body, err
		}
		out, err := handle(s, c, in)
		if err != nil {
			return body, err
		}
		return encode(request, out), nil
	}
}

// allowLargeBody raises the body limit of an operation that takes a
// configuration.
func allowLargeBody(op apiOperation) apiOperation {
	op.maxBody = maxRunBodyBytes
	return askOtherServers(op)
}

// askOtherServers marks an operation that reads git repositories or the hub.
func askOtherServers(op apiOperation) apiOperation {
	op.asksOtherServers = true
	return op
}

// withMethod changes the method of an operation whose requests have no body.
func withMethod(method string, op apiOperation) apiOperation {
	op.method, op.requestType = method, reflect.TypeFor[wire.Null]()
	return op
}

// newEmptyListOperation returns an operation that lists objects that this
// server does not support. The list is always empty, whatever the body asks for.
func newEmptyListOperation(path string, level access.Level) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: level, maxBody: maxBodyBytes,
		summary:     "Always empty: not supported yet.",
		requestType: reflect.TypeFor[map[string]any](), responseType: reflect.TypeFor[[]wire.Null](), optionalBody: true,
		handle: func(s *Server, c *apiCall) error {
			if _, err := decodeBody[*map[string]any](c); err != nil {
				return err
			}
			s.respondJSON(c.w, http.StatusOK, []wire.Null{})
			return nil
		}}
}

// newUnsupportedOperation returns an operation of published clients that always fails.
// feature is a key of unsupportedHints.
func newUnsupportedOperation(path string, level access.Level, feature string) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: level, maxBody: maxBodyBytes,
		summary:     "Always fails: not supported yet.",
		requestType: reflect.TypeFor[map[string]any](), responseType: reflect.TypeFor[wire.Null](),
		optionalBody: true, unsupported: true,
		handle: func(*Server, *apiCall) error {
			return &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: " + feature,
				Hint: unsupportedHints[feature]}
		}}
}

var unsupportedHints = map[string]string{
	"configuring backends by the API": "configure them in the server's config.yml and restart the server",
	"pools":                           "machines come from the backends in the server's config.yml",
	"secrets/add":                     "call secrets/create_or_update, or run: dstack secret set NAME",
	"groups of offers":                "list them one by one: dstack offer",
	"metrics of runs":                 "the server's metrics for Prometheus are at the address that DSTACK_SERVER_METRICS sets",
	"presets":                         "apply the service itself: dstack apply -f FILE",
	"public keys of users":            "attach with the key that users/get_my_user answers, or with run_spec.ssh_key_pub",
	"sharing between projects":        "add users to the project: dstack project members add",
	"users/refresh_ssh_key":           "renew the token, and the key with it: call users/refresh_token",
}

// newSchemaOperation returns an operation that answers a JSON Schema. It needs
// no token, so that editors can load the schema.
func newSchemaOperation(path, summary string, build func() ([]byte, error)) apiOperation {
	return apiOperation{method: http.MethodGet, path: path, level: access.LevelNone, summary: summary,
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[map[string]any](),
		handle: func(_ *Server, c *apiCall) error {
			text, err := build()
			if err != nil {
				return err
			}
			c.w.Header().Set("Cache-Control", "max-age=300")
			writeEncodedJSON(c.w, http.StatusOK, text)
			return nil
		}}
}

// healthStatus answers /healthcheck.
type healthStatus struct {
	Status string `json:"status"`
}

func (s *Server) reportHealth(c *apiCall) error {
	s.respondJSON(c.w, http.StatusOK, healthStatus{"running"})
	return nil
}
