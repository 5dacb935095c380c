package server

import (
	"net/http"
	"reflect"

	"dstack/internal/decide/access"
	"dstack/internal/server/wire"
)

// serveSchema is a call that gives the JSON Schema of what people write; what it
// says is no secret.
func serveSchema(at, what string, make func() ([]byte, error)) apiCall {
	return apiCall{method: http.MethodGet, path: at, level: access.LevelNone, about: "the JSON Schema " + what,
		in: reflect.TypeFor[wire.Null](), out: reflect.TypeFor[map[string]any](),
		serve: func(_ *Server, c *request) error {
			text, err := make()
			if err != nil {
				return err
			}
			c.w.Header().Set("Cache-Control", "max-age=300")
			writeJSON(c.w, http.StatusOK, text)
			return nil
		}}
}
