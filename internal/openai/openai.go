// Package openai is the model endpoint as OpenAI's clients know it: its paths,
// its errors, its list of models, and where in a body the model is named.
package openai

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// Model is one entry of the list of models. Status is ours: ready, or why it
// is not.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Status  string `json:"status"`
}

// NewModel describes a model. Created is in unix seconds.
func NewModel(id string, created int64, ownedBy, status string) Model {
	return Model{ID: id, Object: "model", Created: created, OwnedBy: ownedBy, Status: status}
}

// WriteModels answers GET /models.
func WriteModels(w http.ResponseWriter, models []Model) error {
	if models == nil {
		models = []Model{}
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []Model `json:"data"`
	}{"list", models})
}

// WriteModel answers GET /models/{id}.
func WriteModel(w http.ResponseWriter, m Model) error { return writeJSON(w, http.StatusOK, m) }

// WriteError answers with an error that OpenAI's clients turn into the typed
// one of its status. Code and param may be empty; they are null then.
func WriteError(w http.ResponseWriter, status int, code, param, message string) error {
	return writeJSON(w, status, errorBody(&Problem{Status: status, Code: code, Param: param, Message: message}))
}

// RateLimited is the code of an error that tells of too many requests.
const RateLimited = "rate_limit_exceeded"

// errorBody is a problem as OpenAI's clients read it, in an answer or a stream.
func errorBody(p *Problem) any {
	type told struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return struct {
		Error told `json:"error"`
	}{told{p.Message, errorType(p.Status, p.Code), orNull(p.Param), orNull(p.Code)}}
}

// errorType is the error's type for a status and a code.
func errorType(status int, code string) string {
	switch {
	case code == RateLimited:
		return "requests" // what there are too many of
	case status >= http.StatusInternalServerError:
		return "server_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	default:
		return "invalid_request_error"
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	out := json.NewEncoder(&body)
	out.SetEscapeHTML(false) // it is read in terminals, and never as a page
	if err := out.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, err := w.Write(body.Bytes())
	return err
}
