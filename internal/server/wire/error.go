package wire

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// responses maps each kind of error to its response on the wire (spec §4.3). An
// object that does not exist gives status 400, not 404; clients recognize it by
// the code.
var responses = map[dstack.Kind]struct {
	status int
	code   string
}{
	dstack.Invalid:      {http.StatusBadRequest, "error"},
	dstack.Unsupported:  {http.StatusBadRequest, "error"},
	dstack.Unauthorized: {http.StatusForbidden, ""},
	dstack.Forbidden:    {http.StatusForbidden, ""},
	dstack.NotFound:     {http.StatusBadRequest, "resource_not_exists"},
	dstack.Conflict:     {http.StatusBadRequest, "error"},
	dstack.RolledBack:   {http.StatusBadRequest, "error"},
	dstack.TooLarge:     {http.StatusRequestEntityTooLarge, "error"},
	dstack.NoCapacity:   {http.StatusBadRequest, "error"},
	dstack.Unavailable:  {http.StatusServiceUnavailable, "error"},
	dstack.Timeout:      {http.StatusGatewayTimeout, "error"},
	dstack.Internal:     {http.StatusInternalServerError, ""},
}

// Message is one error in the format of 0.18.10. A nil code is null.
type Message struct {
	Msg  string  `json:"msg"`
	Code *string `json:"code"`
}

// NewDetail returns the detail of a response with one message.
func NewDetail(msg string) []Message {
	code := responses[dstack.Invalid].code
	return []Message{{Msg: msg, Code: &code}}
}

// Error gives Err the code and message that 0.18.10 has for it. If Code or Msg
// is empty, the kind of Err determines it.
type Error struct {
	Code, Msg string
	Err       error
}

func (w Error) Error() string { return w.Err.Error() }
func (w Error) Unwrap() error { return w.Err }

// StatusError is an error of a request that reaches no handler. Its response
// has this status and detail.
type StatusError struct {
	Status int
	Detail any
	Err    *dstack.Error
}

func (g StatusError) Error() string { return g.Err.Error() }
func (g StatusError) Unwrap() error { return g.Err }

// forbiddenBody is the response to a caller whose access a handler denies. As
// in 0.18.10 it has no detail around the message.
type forbiddenBody struct {
	Message
	Error api.ErrorView `json:"error"`
}

// BuildErrorResponse returns the status and the body of the response for an
// error.
func BuildErrorResponse(err error) (status int, body any) {
	if g, ok := errors.AsType[StatusError](err); ok {
		return g.Status, api.ErrorBody{Detail: g.Detail, Error: BuildErrorView(err)}
	}
	if found, ok := errors.AsType[ValidationErrors](err); ok && !found.isUnsupported() {
		return http.StatusUnprocessableEntity, api.ErrorBody{Detail: found, Error: found.buildErrorView()}
	}
	if found, ok := errors.AsType[ValidationErrors](err); ok {
		err = found.toError()
	}
	view := BuildErrorView(err)
	response, known := responses[view.Kind]
	if !known {
		response = responses[dstack.Internal]
	}
	switch response.status {
	case http.StatusForbidden:
		return response.status, forbiddenBody{Message{Msg: "Access denied"}, view}
	case http.StatusInternalServerError:
		return response.status, api.ErrorBody{Detail: "Internal Server Error", Error: view}
	}
	message := Message{Msg: view.Message, Code: &response.code}
	if w, ok := errors.AsType[Error](err); ok {
		if w.Code != "" {
			message.Code = &w.Code
		}
		if w.Msg != "" {
			message.Msg = w.Msg
		}
	}
	return response.status, api.ErrorBody{Detail: []Message{message}, Error: view}
}

// BuildErrorResponseTo returns the status and the body of the response for an error to a request. Published clients name
// their version.
func BuildErrorResponseTo(r *http.Request, err error) (status int, body any) {
	dialect, _ := ChooseDialect(r) // that of a version that is refused does not matter
	switch {
	case r.Header.Get(VersionHeader) == "":
		return BuildErrorResponse(err)
	case dialect == Dialect022:
		return BuildPublishedErrorResponse(joinConfigurationErrors(err))
	default:
		return BuildPublishedErrorResponse(err)
	}
}

// joinConfigurationErrors makes one error of the problems of a configuration or a profile, because the clients of
// Dialect022 print those of a request as Python code.
func joinConfigurationErrors(err error) error {
	found, ok := errors.AsType[ValidationErrors](err)
	if !ok {
		return err
	}
	for _, one := range found {
		if !slices.Contains(one.Loc, any("run_spec")) {
			return err
		}
	}
	return found.toError()
}

// BuildPublishedErrorResponse returns the status and the body of the response to a
// published client. It prints only the message, so that the hint follows on a line of its
// own; and a denied access without the message, so that the status is 400 where the
// operation, and not the token, is the reason.
func BuildPublishedErrorResponse(err error) (status int, body any) {
	status, body = BuildErrorResponse(err)
	switch b := body.(type) {
	case forbiddenBody:
		if b.Error.Kind != dstack.Forbidden {
			return status, body
		}
		code := responses[dstack.Invalid].code
		message := Message{Msg: addHint(b.Error.Message, b.Error.Hint), Code: &code}
		return responses[dstack.Invalid].status, api.ErrorBody{Detail: []Message{message}, Error: b.Error}
	case api.ErrorBody:
		if messages, ok := b.Detail.([]Message); ok && len(messages) == 1 {
			messages[0].Msg = addHint(messages[0].Msg, b.Error.Hint)
		}
	}
	return status, body
}

func addHint(msg, hint string) string {
	if hint == "" {
		return msg
	}
	return msg + "\n" + hint
}

// BuildErrorView returns an error for our own client. It hides the text of
// errors that are not *dstack.Error, which may contain secrets.
func BuildErrorView(err error) api.ErrorView {
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		return api.ErrorView{Kind: e.Kind, Message: e.Message, Hint: e.Hint}
	}
	return api.ErrorView{Kind: dstack.Internal, Message: "the server failed to do this",
		Hint: "the reason is in the server's own output"}
}

// ValidationError is one problem of a request, in the format of 0.18.10.
type ValidationError struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`

	Hint        string `json:"-"`
	Unsupported bool   `json:"-"` // the field is valid, but not supported yet
}

// ValidationErrors is all problems of a request, in the order of the request.
type ValidationErrors []ValidationError

func (c ValidationErrors) Error() string { return c.buildErrorView().Message }

// isUnsupported reports whether the only problems are unsupported fields.
func (c ValidationErrors) isUnsupported() bool {
	for _, one := range c {
		if !one.Unsupported {
			return false
		}
	}
	return len(c) > 0
}

func (c ValidationErrors) toError() *dstack.Error {
	view := c.buildErrorView()
	return &dstack.Error{Kind: view.Kind, Message: view.Message, Hint: view.Hint}
}

func (c ValidationErrors) buildErrorView() api.ErrorView {
	view := api.ErrorView{Kind: dstack.Invalid}
	if c.isUnsupported() {
		view.Kind = dstack.Unsupported
	}
	messages := make([]string, 0, len(c))
	for _, one := range c {
		if location := formatLocation(one.Loc); location != "" && !one.Unsupported {
			messages = append(messages, location+": "+one.Msg)
		} else {
			messages = append(messages, one.Msg)
		}
		if view.Hint == "" {
			view.Hint = one.Hint
		}
	}
	view.Message = strings.Join(messages, "; ")
	return view
}

// formatLocation formats the location of a problem for users: resources.gpu,
// commands.1.
func formatLocation(loc []any) string {
	parts := make([]string, 0, len(loc))
	for _, part := range loc {
		switch part {
		case "body", "plan", "run_spec", "configuration":
		default:
			parts = append(parts, fmt.Sprint(part))
		}
	}
	return strings.Join(parts, ".")
}
