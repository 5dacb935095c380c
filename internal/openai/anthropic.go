package openai

import (
	"net/http"
	"time"
)

// Headers of Anthropic's clients. They use the same endpoint as OpenAI's
// clients, but send the token in X-Api-Key and expect other forms of errors
// and lists.
const (
	AnthropicKey     = "X-Api-Key"
	AnthropicVersion = "Anthropic-Version"
)

// WriteAnthropicError writes an error in Anthropic's form. The type depends on
// the status.
func WriteAnthropicError(w http.ResponseWriter, status int, message string) error {
	return writeJSON(w, status, anthropicError(status, message))
}

func anthropicError(status int, message string) any {
	var e struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
	}
	e.Type, e.Error.Type, e.Error.Message = "error", anthropicType(status), message
	return e
}

// anthropicType returns the error type for a status.
func anthropicType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusServiceUnavailable:
		return "overloaded_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	}
	if isClientFault[status] {
		return "invalid_request_error"
	}
	return "api_error"
}

// bothModel describes a model with the fields of both OpenAI and Anthropic.
type bothModel struct {
	Model
	Type        string `json:"type"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

func newBothModel(m Model) bothModel {
	return bothModel{m, "model", m.ID, time.Unix(m.Created, 0).UTC().Format(time.RFC3339)}
}

// WriteAnthropicModels writes the response of GET /models for Anthropic's
// clients.
func WriteAnthropicModels(w http.ResponseWriter, models []Model) error {
	list := struct {
		Object  string      `json:"object"`
		Data    []bothModel `json:"data"`
		HasMore bool        `json:"has_more"`
		FirstID *string     `json:"first_id"`
		LastID  *string     `json:"last_id"`
	}{Object: "list", Data: []bothModel{}}
	for _, m := range models {
		list.Data = append(list.Data, newBothModel(m))
	}
	if n := len(models); n > 0 {
		list.FirstID, list.LastID = &models[0].ID, &models[n-1].ID
	}
	return writeJSON(w, http.StatusOK, list)
}

// WriteAnthropicModel writes the response of GET /models/{id} for Anthropic's
// clients.
func WriteAnthropicModel(w http.ResponseWriter, m Model) error {
	return writeJSON(w, http.StatusOK, newBothModel(m))
}
