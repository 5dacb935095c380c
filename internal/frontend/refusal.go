package frontend

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"dstack/internal/page"
)

// refusal is an error that the frontend sends, in the form that gateways use.
type refusal struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	status  int
}

var refusalBody = template.Must(template.New("refusal").Parse("<p>{{.Message}}</p><p>{{.Hint}}</p>\n"))

// write sends the refusal: as a page to browsers, else as JSON.
func (e refusal) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		title := strconv.Itoa(e.status) + " " + http.StatusText(e.status)
		_ = page.Page{Title: title, Body: refusalBody, Data: e}.Write(w, e.status) // its client left
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false) // it is read in terminals, and never as a page
	_ = out.Encode(struct {
		Error refusal `json:"error"`
	}{e}) // its client left
}
