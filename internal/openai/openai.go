// Package openai implements the model endpoint for OpenAI's and Anthropic's
// clients: paths, errors, lists of models, and the model named in a body. It
// also translates OpenAI's calls to the API of TGI.
package openai

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// Model is an entry of the list of models. Status is an extension: ready, or
// why the model is not ready.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Status  string `json:"status"`
}

// NewModel returns the description of a model. created is in Unix seconds.
func NewModel(id string, created int64, ownedBy, status string) Model {
	return Model{ID: id, Object: "model", Created: created, OwnedBy: ownedBy, Status: status}
}

// WriteModels writes the response of GET /models.
func WriteModels(w http.ResponseWriter, models []Model) error {
	if models == nil {
		models = []Model{}
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []Model `json:"data"`
	}{"list", models})
}

// WriteModel writes the response of GET /models/{id}.
func WriteModel(w http.ResponseWriter, m Model) error { return writeJSON(w, http.StatusOK, m) }

// WriteHealth writes the response of GET /health.
func WriteHealth(w http.ResponseWriter) error {
	return writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// WriteError writes an error in OpenAI's form. The type depends on status and
// code. An empty code or param becomes null.
func WriteError(w http.ResponseWriter, status int, code, param, message string) error {
	return writeJSON(w, status, errorBody(&Problem{Status: status, Code: code, Param: param, Message: message}))
}

// RateLimited is the code of the error for too many requests.
const RateLimited = "rate_limit_exceeded"

// errorBody returns the JSON of a problem in OpenAI's form, for a response or
// a stream.
func errorBody(p *Problem) any {
	type apiError struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return struct {
		Error apiError `json:"error"`
	}{apiError{p.Message, errorType(p.Status, p.Code), orNull(p.Param), orNull(p.Code)}}
}

// errorType returns the error type for a status and a code.
func errorType(status int, code string) string {
	switch {
	case code == RateLimited:
		return "requests" // OpenAI names the exceeded limit here
	case status >= http.StatusInternalServerError:
		return "server_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case isClientFault[status]:
		return "invalid_request_error"
	default:
		return "server_error"
	}
}

// isClientFault has the statuses below 500 that say what is wrong with a request.
// A model's server returns others for failures of its own: TGI returns 424 where
// its GPU is out of memory.
var isClientFault = map[int]bool{
	http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusNotFound: true, http.StatusMethodNotAllowed: true,
	http.StatusNotAcceptable: true, http.StatusRequestTimeout: true, http.StatusConflict: true, http.StatusLengthRequired: true,
	http.StatusRequestEntityTooLarge: true, http.StatusRequestURITooLong: true, http.StatusUnsupportedMediaType: true,
	http.StatusUnprocessableEntity: true, http.StatusRequestHeaderFieldsTooLarge: true,
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
	out.SetEscapeHTML(false) // readable in terminals; never shown as HTML
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
