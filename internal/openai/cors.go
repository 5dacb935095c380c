package openai

import (
	"net/http"
	"strings"
)

// IsPreflight says whether a browser asks if a page of another origin may make
// a call. Such a question carries no token.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// WritePreflight answers that question: any page may, with any header. Only a
// token opens a model, and no browser sends one by itself.
func WritePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	AllowOrigin(h)
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	// A star would leave Authorization out.
	if asked := r.Header.Get("Access-Control-Request-Headers"); isHeaderNameList(asked) {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	h.Set("Vary", "Access-Control-Request-Headers")
	w.WriteHeader(http.StatusNoContent)
}

// AllowOrigin lets pages of any origin read an answer. What a replica said about
// that is replaced: two such headers contradict each other.
func AllowOrigin(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "*")
}

// isHeaderNameList says whether s is a list of header names, and one of a decent length.
func isHeaderNameList(s string) bool {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~, "
	return s != "" && len(s) <= 2048 && strings.Trim(s, legal) == ""
}
