package gateway

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// Kinds of errors that only a gateway has.
const (
	badGateway dstack.Kind = "bad_gateway"            // the replica did not answer properly
	badMethod  dstack.Kind = "method_not_allowed"     // see the Allow header
	tooMany    dstack.Kind = "too_many_requests"      // of one caller
	tooSlowly  dstack.Kind = "request_timeout"        // the body comes too slowly
	badCoding  dstack.Kind = "unsupported_media_type" // the body is compressed
)

// words are an error's, embedded under a name that leaves its method free.
type words = dstack.Error

// refusal is an error with what an answer needs beside its words.
type refusal struct {
	words
	code, param string // on the model endpoint; code has a default for each kind
	challenge   string // WWW-Authenticate
	allow       []string
	retry       int // seconds, for Retry-After
}

// kinds is the one table from an error's kind to its answer.
var kinds = map[dstack.Kind]struct {
	status int
	code   string // on the model endpoint
}{
	dstack.Invalid:      {http.StatusBadRequest, "invalid_request"},
	dstack.Unauthorized: {http.StatusUnauthorized, "invalid_api_key"},
	dstack.Forbidden:    {http.StatusForbidden, "forbidden"},
	dstack.NotFound:     {http.StatusNotFound, "not_found"},
	badMethod:           {http.StatusMethodNotAllowed, "method_not_allowed"},
	dstack.TooLarge:     {http.StatusRequestEntityTooLarge, "request_too_large"},
	badCoding:           {http.StatusUnsupportedMediaType, "unsupported_content_encoding"},
	tooSlowly:           {http.StatusRequestTimeout, "request_timeout"},
	tooMany:             {http.StatusTooManyRequests, openai.RateLimited},
	dstack.Internal:     {http.StatusInternalServerError, "internal_error"},
	badGateway:          {http.StatusBadGateway, "bad_gateway"},
	dstack.Unavailable:  {http.StatusServiceUnavailable, "service_unavailable"},
	dstack.Timeout:      {http.StatusGatewayTimeout, "timeout"},
}

// refuse answers with an error: as OpenAI does on the model endpoint, as a
// page to browsers, else as JSON.
func (x *exchange) refuse(e *refusal) {
	kind, ok := kinds[e.Kind]
	if !ok {
		panic("gateway: no answer for an error of kind " + string(e.Kind))
	}
	if x.in != nil {
		x.in.abandon()
	}
	if x.opened {
		x.tellEvent(e.asProblem())
		return
	}
	h := x.w.Header()
	h.Set("X-Request-Id", x.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if e.challenge != "" {
		h.Set("Www-Authenticate", e.challenge)
	}
	if len(e.allow) > 0 {
		h.Set("Allow", strings.Join(e.allow, ", "))
	}
	if e.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retry))
	}
	var err error
	switch {
	case x.means.Models:
		err = x.refuseOpenAI(e)
	case strings.Contains(x.r.Header.Get("Accept"), "text/html"):
		err = x.refusePage(e, kind.status)
	default:
		err = x.refuseJSON(e, kind.status)
	}
	if err != nil {
		x.g.log.Debug("error not delivered", "id", x.id, "err", err)
	}
}

func (x *exchange) refuseOpenAI(e *refusal) error {
	openai.AllowOrigin(x.w.Header())
	p := e.asProblem()
	if x.forAnthropic() {
		return openai.WriteAnthropicError(x.w, p.Status, p.Message)
	}
	return p.Write(x.w)
}

func (x *exchange) refuseJSON(e *refusal, status int) error {
	type told struct {
		Kind    dstack.Kind `json:"kind"`
		Message string      `json:"message"`
		Hint    string      `json:"hint,omitempty"`
	}
	var body bytes.Buffer
	out := json.NewEncoder(&body)
	out.SetEscapeHTML(false) // it is read in terminals, and never as a page
	err := out.Encode(struct {
		Error told `json:"error"`
	}{told{e.Kind, e.Message, e.Hint}})
	if err != nil {
		return err
	}
	return x.write(status, "application/json", body.Bytes())
}

// refusePage is for people. A service that is not ready yet is asked for again
// by itself.
func (x *exchange) refusePage(e *refusal, status int) error {
	title := strconv.Itoa(status) + " " + http.StatusText(status)
	again := ""
	if status == http.StatusServiceUnavailable && e.retry > 0 {
		again = `<meta http-equiv="refresh" content="` + strconv.Itoa(e.retry) + `">`
	}
	page := `<!doctype html><html lang="en"><head><meta charset="utf-8">` + again + `<title>` + title +
		`</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;color:#222}` +
		`p{color:#555}</style></head><body><h1>` + title + `</h1><p>` + html.EscapeString(e.Message) + `</p><p>` +
		html.EscapeString(e.Hint) + "</p></body></html>\n"
	x.w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	return x.write(status, "text/html; charset=utf-8", []byte(page))
}

func (x *exchange) write(status int, kind string, body []byte) error {
	x.w.Header().Set("Content-Type", kind)
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, err := x.w.Write(body)
	return err
}
