package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// answers is what each kind of error becomes on the wire (spec §4.3). Things
// that are not there are 400, not 404: the reference's client knows them by
// their code.
var answers = map[dstack.Kind]struct {
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

// message is what the reference says where we refuse; a code that is empty
// is null.
type message struct {
	Msg  string  `json:"msg"`
	Code *string `json:"code"`
}

// worded is an error that the reference answers with a code or words of its
// own. Empty ones are those of the error's kind.
type worded struct {
	code, msg string
	err       error
}

func (w worded) Error() string { return w.err.Error() }
func (w worded) Unwrap() error { return w.err }

// gate is an error from before a call was let in. Its detail is answered as
// it is, with that status.
type gate struct {
	status int
	detail any
	err    *dstack.Error
}

func (g gate) Error() string { return g.err.Error() }
func (g gate) Unwrap() error { return g.err }

// forbidden answers a call whose handler found that its caller may not do it;
// the reference puts that without a detail around it.
type forbidden struct {
	message
	Error api.ErrorView `json:"error"`
}

// refusalOf decides what an error is answered with.
func refusalOf(err error) (status int, body any) {
	if g, ok := errors.AsType[gate](err); ok {
		return g.status, api.ErrorBody{Detail: g.detail, Error: viewOf(err)}
	}
	if found, ok := errors.AsType[complaints](err); ok && !found.unsupported() {
		return http.StatusUnprocessableEntity, api.ErrorBody{Detail: found, Error: found.view()}
	}
	if found, ok := errors.AsType[complaints](err); ok {
		err = found.asError()
	}
	view := viewOf(err)
	answer, known := answers[view.Kind]
	if !known {
		answer = answers[dstack.Internal]
	}
	switch answer.status {
	case http.StatusForbidden:
		return answer.status, forbidden{message{Msg: "Access denied"}, view}
	case http.StatusInternalServerError:
		return answer.status, api.ErrorBody{Detail: "Internal Server Error", Error: view}
	}
	said := message{Msg: view.Message, Code: &answer.code}
	if w, ok := errors.AsType[worded](err); ok {
		if w.code != "" {
			said.Code = &w.code
		}
		if w.msg != "" {
			said.Msg = w.msg
		}
	}
	return answer.status, api.ErrorBody{Detail: []message{said}, Error: view}
}

// viewOf is an error for our own client. What was not meant for people is
// kept from them: it may tell of things that are not theirs.
func viewOf(err error) api.ErrorView {
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		return api.ErrorView{Kind: e.Kind, Message: e.Message, Hint: e.Hint}
	}
	return api.ErrorView{Kind: dstack.Internal, Message: "the server failed to do this",
		Hint: "the reason is in the server's own output"}
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) { // the client is gone, or the server is going
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping", Hint: "try again in a moment"}
	}
	status, body := refusalOf(err)
	if status == http.StatusInternalServerError {
		s.log.LogAttrs(r.Context(), slog.LevelError, "a call failed", slog.String("call", r.Pattern),
			slog.Any("err", err), slog.Any("cause", errors.Unwrap(err)))
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	s.write(w, status, body)
}

// write answers with JSON, whole or not at all.
func (s *Server) write(w http.ResponseWriter, status int, body any) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		s.log.Error("an answer cannot be written as JSON", "err", err)
		status = http.StatusInternalServerError
		text.Reset()
		text.WriteString(`{"detail":"Internal Server Error","error":{"kind":"internal","message":"the answer cannot be written"}}`)
	}
	send(w, status, text.Bytes())
}

const (
	pieceSize = 256 << 10
	pieceTime = time.Minute // that a client may take for one piece of an answer
)

// send writes a whole answer of JSON. A client that does not read it is let
// go, and so is one that is gone: there is nobody else to tell.
func send(w http.ResponseWriter, status int, text []byte) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	for piece := range slices.Chunk(text, pieceSize) {
		_ = control.SetWriteDeadline(time.Now().Add(pieceTime)) // where it can be set
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
	if control.Flush() == nil {
		_ = control.SetWriteDeadline(time.Time{}) // what comes after has its own
	}
}

// complaint is one thing wrong with a request, in the shape of the reference.
type complaint struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`

	hint  string
	later bool // right, but nothing acts on it yet
}

// complaints is everything wrong with a request, in its order.
type complaints []complaint

func (c complaints) Error() string { return c.view().Message }

// unsupported says that nothing is wrong but that it came too early.
func (c complaints) unsupported() bool {
	for _, one := range c {
		if !one.later {
			return false
		}
	}
	return len(c) > 0
}

func (c complaints) asError() *dstack.Error {
	view := c.view()
	return &dstack.Error{Kind: view.Kind, Message: view.Message, Hint: view.Hint}
}

func (c complaints) view() api.ErrorView {
	view := api.ErrorView{Kind: dstack.Invalid}
	if c.unsupported() {
		view.Kind = dstack.Unsupported
	}
	said := make([]string, 0, len(c))
	for _, one := range c {
		if place := placeOf(one.Loc); place != "" && !one.later {
			said = append(said, place+": "+one.Msg)
		} else {
			said = append(said, one.Msg)
		}
		if view.Hint == "" {
			view.Hint = one.hint
		}
	}
	view.Message = strings.Join(said, "; ")
	return view
}

// placeOf writes a place as people read it: resources.gpu, commands.1.
func placeOf(loc []any) string {
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
