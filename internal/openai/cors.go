package openai

import (
	"net/http"
	"strings"
)

// IsPreflight reports whether r is a CORS preflight request, which carries no
// token.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// WritePreflight allows the call for every origin and header. This is safe
// because models require a token, which browsers do not send on their own.
func WritePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	AllowOrigin(h)
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	// The value * does not include Authorization.
	if asked := r.Header.Get("Access-Control-Request-Headers"); isHeaderNameList(asked) {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	h.Set("Vary", "Access-Control-Request-Headers")
	w.WriteHeader(http.StatusNoContent)
}

// AllowOrigin allows every origin to read the response. It removes the
// replica's own CORS headers because duplicates are invalid.
func AllowOrigin(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "*")
}

// isHeaderNameList reports whether s is a list of header names of a reasonable
// length.
func isHeaderNameList(s string) bool {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~, "
	return s != "" && len(s) <= 2048 && strings.Trim(s, legal) == ""
}
