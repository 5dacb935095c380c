package server

import (
	"net/http"
	"reflect"

	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
)

// newSchemaOperation is a call that gives the JSON Schema of what people write; what it
// says is no secret.
func newSchemaOperation(at, what string, make func() ([]byte, error)) apiOperation {
	return apiOperation{method: http.MethodGet, path: at, level: access.None, summary: "the JSON Schema " + what,
		requestType: reflect.TypeFor[wire.Null](), responseType: reflect.TypeFor[map[string]any](),
		handle: func(_ *Server, c *apiCall) error {
			text, err := make()
			if err != nil {
				return err
			}
			c.w.Header().Set("Cache-Control", "max-age=300")
			writeJSON(c.w, http.StatusOK, text)
			return nil
		}}
}
