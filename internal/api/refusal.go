package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// kindOfStatus is what an HTTP status means where the answer itself does not
// say. What is not here is Internal.
var kindOfStatus = map[int]dstack.Kind{
	http.StatusBadRequest:            dstack.Invalid,
	http.StatusUnauthorized:          dstack.Unauthorized,
	http.StatusForbidden:             dstack.Forbidden,
	http.StatusNotFound:              dstack.NotFound,
	http.StatusRequestTimeout:        dstack.Timeout,
	http.StatusConflict:              dstack.Conflict,
	http.StatusRequestEntityTooLarge: dstack.TooLarge,
	http.StatusUnprocessableEntity:   dstack.Invalid,
	http.StatusTooManyRequests:       dstack.Unavailable,
	http.StatusBadGateway:            dstack.Unavailable,
	http.StatusServiceUnavailable:    dstack.Unavailable,
	http.StatusGatewayTimeout:        dstack.Unavailable,
}

// kindOfCode is what the codes of the reference mean (spec §4.3).
var kindOfCode = map[string]dstack.Kind{
	"resource_exists":     dstack.Conflict,
	"resource_not_exists": dstack.NotFound,
	"repo_does_not_exist": dstack.NotFound,
}

// unreach marks an error as "no answer came", which alone is worth another
// try of a read.
type unreach struct{ err error }

func (u unreach) Error() string { return u.err.Error() }
func (u unreach) Unwrap() error { return u.err }

func unreached(err error) bool {
	_, ok := errors.AsType[unreach](err)
	return ok
}

// unreachable is the error of a call that got no answer, or half of one.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // the caller's own doing, or its limit
	}
	return &dstack.Error{Kind: dstack.Unavailable, Cause: unreach{err},
		Message: fmt.Sprintf("cannot reach the dstack server at %s", c.base),
		Hint:    "start it with: dstack server"}
}

func (c *Client) tooSlow(limit time.Duration) error {
	return &dstack.Error{Kind: dstack.Timeout,
		Message: fmt.Sprintf("the dstack server at %s did not answer within %s", c.base, limit),
		Hint:    "look at the server's own output, then try again"}
}

// notOurs is the error for an answer that no dstack server gives.
func (c *Client) notOurs(cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause,
		Message: fmt.Sprintf("%s does not answer like a dstack server", c.base),
		Hint:    "check the URL (dstack config), and that client and server have one version"}
}

// refusal makes an error of an answer that is not 200.
func (c *Client) refusal(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return c.unreachable(response.Request.Context(), err)
	}
	if to := response.Header.Get("Location"); to != "" && response.StatusCode/100 == 3 {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: fmt.Sprintf("%s sends us on to %s", c.base, to),
			Hint:    "set that address: dstack config --url"}
	}
	var body struct {
		Detail json.RawMessage `json:"detail"`
		Error  ErrorView       `json:"error"`
		Msg    string          `json:"msg"`
	}
	isJSON := json.Unmarshal(text, &body) == nil
	refused := &dstack.Error{Kind: body.Error.Kind, Message: body.Error.Message, Hint: body.Error.Hint,
		Cause: fmt.Errorf("%s answered %s", response.Request.URL, response.Status)}
	if refused.Message == "" {
		if !isJSON && response.StatusCode < 500 {
			return c.notOurs(refused.Cause)
		}
		refused.Kind, refused.Message = fromDetail(response.StatusCode, body.Detail, body.Msg)
	}
	if refused.Message == "" {
		refused.Message = fmt.Sprintf("the dstack server at %s answered %s", c.base, response.Status)
	}
	if refused.Hint == "" && refused.Kind == dstack.Unauthorized {
		refused.Hint = "give the token again: dstack config --url " + c.base.String()
	}
	return refused
}

// fromDetail reads the shapes of the reference: a text, one message, a list
// of messages, or the complaints of a validation.
func fromDetail(status int, detail json.RawMessage, msg string) (dstack.Kind, string) {
	type item struct {
		Msg  string `json:"msg"`
		Code string `json:"code"`
		Loc  []any  `json:"loc"`
	}
	kind, known := kindOfStatus[status]
	if !known {
		kind = dstack.Internal
	}
	var one item
	var many []item
	var words string
	switch {
	case json.Unmarshal(detail, &words) == nil && words != "":
		one.Msg = words
	case json.Unmarshal(detail, &one) == nil && one.Msg != "":
	case json.Unmarshal(detail, &many) == nil && len(many) > 0:
		if byCode, ok := kindOfCode[many[0].Code]; ok {
			kind = byCode
		}
		said := make([]string, 0, len(many))
		for _, m := range many {
			said = append(said, strings.TrimPrefix(place(m.Loc)+": "+m.Msg, ": "))
		}
		return kind, strings.Join(said, "; ")
	default:
		one.Msg = msg
	}
	return kind, one.Msg
}

func place(loc []any) string {
	parts := make([]string, 0, len(loc))
	for _, l := range loc {
		if l != "body" {
			parts = append(parts, fmt.Sprint(l))
		}
	}
	return strings.Join(parts, ".")
}
