package wire

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// responses is what each kind of error becomes on the wire (spec §4.3). Things
// that are not there are 400, not 404: the reference's client knows them by
// their code.
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

// Message is what the reference says where we refuse; a code that is empty
// is null.
type Message struct {
	Msg  string  `json:"msg"`
	Code *string `json:"code"`
}

// Error is an error that the reference answers with a code or words of its
// own. Empty ones are those of the error's kind.
type Error struct {
	Code, Msg string
	Err       error
}

func (w Error) Error() string { return w.Err.Error() }
func (w Error) Unwrap() error { return w.Err }

// StatusError is an error from before a call was let in. Its detail is answered as
// it is, with that status.
type StatusError struct {
	Status int
	Detail any
	Err    *dstack.Error
}

func (g StatusError) Error() string { return g.Err.Error() }
func (g StatusError) Unwrap() error { return g.Err }

// forbiddenBody answers a call whose handler found that its caller may not do it;
// the reference puts that without a detail around it.
type forbiddenBody struct {
	Message
	Error api.ErrorView `json:"error"`
}

// BuildRefusal decides what an error is answered with.
func BuildRefusal(err error) (status int, body any) {
	if g, ok := errors.AsType[StatusError](err); ok {
		return g.Status, api.ErrorBody{Detail: g.Detail, Error: BuildErrorView(err)}
	}
	if found, ok := errors.AsType[ValidationErrors](err); ok && !found.isUnsupported() {
		return http.StatusUnprocessableEntity, api.ErrorBody{Detail: found, Error: found.buildView()}
	}
	if found, ok := errors.AsType[ValidationErrors](err); ok {
		err = found.toError()
	}
	view := BuildErrorView(err)
	answer, known := responses[view.Kind]
	if !known {
		answer = responses[dstack.Internal]
	}
	switch answer.status {
	case http.StatusForbidden:
		return answer.status, forbiddenBody{Message{Msg: "Access denied"}, view}
	case http.StatusInternalServerError:
		return answer.status, api.ErrorBody{Detail: "Internal Server Error", Error: view}
	}
	said := Message{Msg: view.Message, Code: &answer.code}
	if w, ok := errors.AsType[Error](err); ok {
		if w.Code != "" {
			said.Code = &w.Code
		}
		if w.Msg != "" {
			said.Msg = w.Msg
		}
	}
	return answer.status, api.ErrorBody{Detail: []Message{said}, Error: view}
}

// BuildErrorView is an error for our own client. What was not meant for people is
// kept from them: it may tell of things that are not theirs.
func BuildErrorView(err error) api.ErrorView {
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		return api.ErrorView{Kind: e.Kind, Message: e.Message, Hint: e.Hint}
	}
	return api.ErrorView{Kind: dstack.Internal, Message: "the server failed to do this",
		Hint: "the reason is in the server's own output"}
}

// ValidationError is one thing wrong with a request, in the shape of the reference.
type ValidationError struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`

	Hint        string `json:"-"`
	Unsupported bool   `json:"-"` // right, but nothing acts on it yet
}

// ValidationErrors is everything wrong with a request, in its order.
type ValidationErrors []ValidationError

func (c ValidationErrors) Error() string { return c.buildView().Message }

// isUnsupported says that nothing is wrong but that it came too early.
func (c ValidationErrors) isUnsupported() bool {
	for _, one := range c {
		if !one.Unsupported {
			return false
		}
	}
	return len(c) > 0
}

func (c ValidationErrors) toError() *dstack.Error {
	view := c.buildView()
	return &dstack.Error{Kind: view.Kind, Message: view.Message, Hint: view.Hint}
}

func (c ValidationErrors) buildView() api.ErrorView {
	view := api.ErrorView{Kind: dstack.Invalid}
	if c.isUnsupported() {
		view.Kind = dstack.Unsupported
	}
	said := make([]string, 0, len(c))
	for _, one := range c {
		if place := formatLocation(one.Loc); place != "" && !one.Unsupported {
			said = append(said, place+": "+one.Msg)
		} else {
			said = append(said, one.Msg)
		}
		if view.Hint == "" {
			view.Hint = one.Hint
		}
	}
	view.Message = strings.Join(said, "; ")
	return view
}

// formatLocation writes a place as people read it: resources.gpu, commands.1.
func formatLocation(loc []any) string {
	parts := make([]string, 0, len(loc))
	for _, part := range loc {
		switch part {
		case "body", "run_spec", "configuration":
		default:
			parts = append(parts, fmt.Sprint(part))
		}
	}
	return strings.Join(parts, ".")
}
