package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// kindByStatus maps HTTP statuses to error kinds, for responses without a kind.
// All other statuses are Internal.
var kindByStatus = map[int]dstack.Kind{
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

// kindByCode maps the error codes of dstack 0.18.10 to error kinds (spec §4.3).
var kindByCode = map[string]dstack.Kind{
	"resource_exists":     dstack.Conflict,
	"resource_not_exists": dstack.NotFound,
	"repo_does_not_exist": dstack.NotFound,
}

// noResponseError marks the cause of an error as a missing or incomplete
// response. Only such errors make readWithRetry try again.
type noResponseError struct{ err error }

func (u noResponseError) Error() string { return u.err.Error() }
func (u noResponseError) Unwrap() error { return u.err }

func isNoResponse(err error) bool {
	_, ok := errors.AsType[noResponseError](err)
	return ok
}

// unreachableError returns the error of a call without a complete response.
func (c *Client) unreachableError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // canceled by the caller, or timed out
	}
	message, hint := "cannot reach "+c.describeServers(), c.unreachableHint()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED): // it does not run
	case errors.Is(err, http.ErrSchemeMismatch):
		message += ": it speaks http, not https"
		hint = "correct the URL: dstack config --url http://" + c.base().Host
	case isUnknownAuthority(err) && isLoopbackHost(c.base().Hostname()): // the server's port has its own authority
		message += ": this machine does not know the authority of its certificate"
		hint = "use http on the machine of the server: dstack config --url http://" + c.base().Host
	default:
		message += ": " + human.DescribeFailure(err)
		hint = otherwiseHint
	}
	return &dstack.Error{Kind: dstack.Unavailable, Cause: noResponseError{err}, Message: message, Hint: hint}
}

const otherwiseHint = "check that it runs, that this machine can reach it, and the URL: dstack config"

func isUnknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// isLoopbackHost reports whether a host without port is this machine.
func isLoopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// unreachableHint says how to start the server that listens at the client's URL, if it
// is on this machine, and otherwise what to check.
func (c *Client) unreachableHint() string {
	if c.urls.isShared() {
		return otherwiseHint
	}
	port := c.base().Port()
	if port == "" && c.base().Scheme == "http" {
		port = "80"
	}
	switch {
	case port == "" || !isLoopbackHost(c.base().Hostname()):
		return otherwiseHint
	case port == defaultPort:
		return "start it with: dstack server"
	}
	return "start it with: dstack server --port " + port + "\nor use another server: dstack config"
}

// defaultPort is the port of a server that is started without --port.
const defaultPort = "3000"

// timeoutError returns the error of a call that took longer than limit.
func (c *Client) timeoutError(limit time.Duration) error {
	return &dstack.Error{Kind: dstack.Timeout,
		Message: fmt.Sprintf("the dstack server at %s did not answer within %s", c.base(), limit),
		Hint:    "check the output of the server, then try again"}
}

// unexpectedResponseError returns the error for a response that is not in the
// format of a dstack server.
func (c *Client) unexpectedResponseError(cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause,
		Message: fmt.Sprintf("%s does not answer like a dstack server", c.base()),
		Hint:    "check the URL (dstack config), and that client and server have the same version"}
}

// responseError turns a response with a status other than 200 into an error.
func (c *Client) responseError(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return c.unreachableError(response.Request.Context(), err)
	}
	if to := response.Header.Get("Location"); to != "" && response.StatusCode/100 == 3 {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: fmt.Sprintf("%s redirects to %s", c.base(), to),
			Hint:    "set the new URL: dstack config --url"}
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
			return c.unexpectedResponseError(refused.Cause)
		}
		refused.Kind, refused.Message = parseDetail(response.StatusCode, body.Detail, body.Msg)
	}
	if refused.Message == "" {
		refused.Message = fmt.Sprintf("the dstack server at %s answered %s", c.base(), response.Status)
		refused.Hint = "check the output of the server, then try again"
	}
	if refused.Hint == "" && refused.Kind == dstack.Unauthorized {
		refused.Hint = "set the token again: dstack config --url " + c.base().String()
	}
	return refused
}

// parseDetail returns the kind and message of an error in the format of dstack
// 0.18.10. The detail is a text, one message, a list of messages, or a list of
// validation errors.
func parseDetail(status int, detail json.RawMessage, msg string) (dstack.Kind, string) {
	type item struct {
		Msg  string `json:"msg"`
		Code string `json:"code"`
		Loc  []any  `json:"loc"`
	}
	kind, known := kindByStatus[status]
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
		if byCode, ok := kindByCode[many[0].Code]; ok {
			kind = byCode
		}
		said := make([]string, 0, len(many))
		for _, m := range many {
			said = append(said, strings.TrimPrefix(joinLocation(m.Loc)+": "+m.Msg, ": "))
		}
		return kind, strings.Join(said, "; ")
	default:
		one.Msg = msg
	}
	return kind, one.Msg
}

// joinLocation joins the location of a validation error to a path, without the
// leading "body".
func joinLocation(loc []any) string {
	parts := make([]string, 0, len(loc))
	for _, l := range loc {
		if l != "body" {
			parts = append(parts, fmt.Sprint(l))
		}
	}
	return strings.Join(parts, ".")
}
