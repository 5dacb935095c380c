package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestBuildErrorResponse(t *testing.T) {
	plain := func(k dstack.Kind) error { return &dstack.Error{Kind: k, Message: "m", Hint: "h"} }
	ours := func(k dstack.Kind) string { return fmt.Sprintf(`"error":{"kind":%q,"message":"m","hint":"h"}`, k) }
	list := func(code string, k dstack.Kind) string {
		return fmt.Sprintf(`{"detail":[{"msg":"m","code":%q}],%s}`, code, ours(k))
	}
	for _, c := range []struct {
		name   string
		err    error
		status int
		body   string
	}{
		{"invalid", plain(dstack.Invalid), 400, list("error", dstack.Invalid)},
		{"unsupported", plain(dstack.Unsupported), 400, list("error", dstack.Unsupported)},
		{"conflict", plain(dstack.Conflict), 400, list("error", dstack.Conflict)},
		{"no capacity", plain(dstack.NoCapacity), 400, list("error", dstack.NoCapacity)},
		{"not found gives 400", plain(dstack.NotFound), 400, list("resource_not_exists", dstack.NotFound)},
		{"too large", plain(dstack.TooLarge), 413, list("error", dstack.TooLarge)},
		{"unavailable", plain(dstack.Unavailable), 503, list("error", dstack.Unavailable)},
		{"timeout", plain(dstack.Timeout), 504, list("error", dstack.Timeout)},
		{"a name that is taken", Error{Code: "resource_exists", Msg: "Resource exists", Err: plain(dstack.Conflict)}, 400,
			`{"detail":[{"msg":"Resource exists","code":"resource_exists"}],` + ours(dstack.Conflict) + `}`},
		{"denied by a handler", plain(dstack.Forbidden), 403, `{"msg":"Access denied","code":null,` + ours(dstack.Forbidden) + `}`},
		{"denied before the handler", StatusError{403, Message{Msg: "Access denied"}, &dstack.Error{Kind: dstack.Forbidden, Message: "m", Hint: "h"}}, 403,
			`{"detail":{"msg":"Access denied","code":null},` + ours(dstack.Forbidden) + `}`},
		{"a wrapped error keeps its kind", fmt.Errorf("while: %w", plain(dstack.Invalid)), 400, list("error", dstack.Invalid)},
		{"an internal error hides its text", errors.New("secret path"), 500,
			`{"detail":"Internal Server Error","error":{"kind":"internal","message":"the server failed to do this","hint":"the reason is in the server's own output"}}`},
		{"an unknown kind", &dstack.Error{Kind: "new", Message: "m", Hint: "h"}, 500,
			`{"detail":"Internal Server Error",` + ours("new") + `}`},
		{"validation errors", ValidationErrors{{Loc: []any{"body", "run_spec", "configuration", "commands", 1}, Msg: "m", Type: "t", Hint: "h"}}, 422,
			`{"detail":[{"loc":["body","run_spec","configuration","commands",1],"msg":"m","type":"t"}],"error":{"kind":"invalid","message":"commands.1: m","hint":"h"}}`},
		{"only unsupported fields", ValidationErrors{{Loc: []any{"body", "x"}, Msg: "m", Hint: "h", Unsupported: true}}, 400, list("error", dstack.Unsupported)},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := BuildErrorResponse(c.err)
			text, err := json.Marshal(body)
			if err != nil || status != c.status || string(text) != c.body {
				t.Errorf("%d %s (%v)\nwant %d %s", status, text, err, c.status, c.body)
			}
		})
	}
}

// The published client prints detail[0].msg and nothing else, and a traceback for other
// statuses than 400.
func TestBuildPublishedErrorResponse(t *testing.T) {
	plain := func(k dstack.Kind, hint string) error { return &dstack.Error{Kind: k, Message: "m", Hint: hint} }
	for _, c := range []struct {
		name   string
		err    error
		status int
		detail string
	}{
		{"the hint is the second line", plain(dstack.Invalid, "h"), 400, `[{"msg":"m\nh","code":"error"}]`},
		{"no hint", plain(dstack.Conflict, ""), 400, `[{"msg":"m","code":"error"}]`},
		{"the message of 0.18.10 is the first line", Error{Msg: "Run not found", Err: plain(dstack.NotFound, "h")}, 400,
			`[{"msg":"Run not found\nh","code":"resource_not_exists"}]`},
		{"denied by a handler", plain(dstack.Forbidden, "h"), 400, `[{"msg":"m\nh","code":"error"}]`},
		{"denied before the handler", StatusError{403, Message{Msg: "Access denied"}, &dstack.Error{Kind: dstack.Forbidden, Message: "m", Hint: "h"}}, 403,
			`{"msg":"Access denied","code":null}`},
		{"validation errors", ValidationErrors{{Loc: []any{"body"}, Msg: "m", Type: "t", Hint: "h"}}, 422, `[{"loc":["body"],"msg":"m","type":"t"}]`},
		{"an internal error", errors.New("secret path"), 500, `"Internal Server Error"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := BuildPublishedErrorResponse(c.err)
			text, err := json.Marshal(body.(api.ErrorBody).Detail)
			if err != nil || status != c.status || string(text) != c.detail {
				t.Errorf("%d %s (%v)\nwant %d %s", status, text, err, c.status, c.detail)
			}
		})
	}
}

func TestResponses_ContainEveryKind(t *testing.T) {
	for _, kind := range []dstack.Kind{dstack.Invalid, dstack.Unsupported, dstack.Unauthorized, dstack.Forbidden, dstack.NotFound,
		dstack.Conflict, dstack.RolledBack, dstack.TooLarge, dstack.NoCapacity, dstack.Unavailable, dstack.Timeout, dstack.Internal} {
		if responses[kind].status == 0 {
			t.Errorf("%s has no response", kind)
		}
	}
}
