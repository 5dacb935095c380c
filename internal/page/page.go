// Package page builds the small pages that people see in a browser where
// programs get JSON. A page needs nothing but itself: no script, no image, no
// other file.
package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
)

// style follows the browser's own colours, light or dark.
const style = `:root{color-scheme:light dark}` +
	`body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:12vh auto;padding:0 1em}` +
	`h1{font-size:1.5em}code,pre{font:.9em ui-monospace,monospace}` +
	`pre{overflow-x:auto;padding:.8em;border:1px solid;border-radius:.4em}` +
	`input,button{font:inherit;padding:.4em .7em;border:1px solid;border-radius:.4em}` +
	`input{width:100%;box-sizing:border-box;margin:.3em 0 1em}` +
	`.error{border-left:.3em solid #c33;padding-left:.7em}`

// layout surrounds the body of a page.
var layout = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">` +
	`{{if .Refresh}}<meta http-equiv="refresh" content="{{.Refresh}}">{{end}}<title>{{.Title}}</title>` +
	`<style>` + style + `</style></head><body><h1>{{.Title}}</h1>
{{.Body}}</body></html>
`))

// policy allows a page its own style, and its form to be sent to its own host.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// Page is a page with a title. Body is executed with Data, which it escapes.
type Page struct {
	Title   string
	Body    *template.Template
	Data    any
	Refresh int // seconds until the browser loads the address again; 0: never
}

// Render returns the HTML of the page.
func (p Page) Render() ([]byte, error) {
	var body, all bytes.Buffer
	if err := p.Body.Execute(&body, p.Data); err != nil {
		return nil, err
	}
	err := layout.Execute(&all, struct {
		Title   string
		Refresh int
		Body    template.HTML
	}{p.Title, p.Refresh, template.HTML(body.String())}) // of a template, which escapes
	return all.Bytes(), err
}

// Write sends the page. It replaces headers about the content and its safety,
// and no others.
func (p Page) Write(w http.ResponseWriter, status int) error {
	text, err := p.Render()
	if err != nil {
		return err
	}
	SetHeaders(w.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, err = w.Write(text)
	return err
}

// SetHeaders sets the headers of a page. A form's request carries its origin only
// if the page does not hide it: the referrer policy is not no-referrer.
func SetHeaders(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
