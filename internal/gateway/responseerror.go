package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/openai"
	"dstack/internal/page"
)

// Kinds of errors that only a gateway has.
const (
	badGateway      dstack.Kind = "bad_gateway"            // no proper response from the replica
	badMethod       dstack.Kind = "method_not_allowed"     // with an Allow header
	tooManyRequests dstack.Kind = "too_many_requests"      // of one caller
	tooSlowly       dstack.Kind = "request_timeout"        // the body arrives too slowly
	badEncoding     dstack.Kind = "unsupported_media_type" // the body is compressed
)

// details is dstack.Error, embedded under a name that leaves its method Error
// accessible.
type details = dstack.Error

// responseError is an error with what its response has beside the message.
type responseError struct {
	details
	code, param string // on the model endpoint; code has a default for each kind
	challenge   string // WWW-Authenticate
	allow       []string
	retryAfter  int  // seconds, for Retry-After; 429 and 503 have a default
	isLasting   bool // waiting does not cure it
}

// errorKinds has the response's status and code for each kind of error.
var errorKinds = map[dstack.Kind]struct {
	status int
	code   string // on the model endpoint
}{
	dstack.Invalid:      {http.StatusBadRequest, "invalid_request"},
	dstack.Unauthorized: {http.StatusUnauthorized, "invalid_api_key"},
	dstack.Forbidden:    {http.StatusForbidden, "forbidden"},
	dstack.NotFound:     {http.StatusNotFound, "not_found"},
	badMethod:           {http.StatusMethodNotAllowed, "method_not_allowed"},
	dstack.TooLarge:     {http.StatusRequestEntityTooLarge, "request_too_large"},
	badEncoding:         {http.StatusUnsupportedMediaType, "unsupported_content_encoding"},
	tooSlowly:           {http.StatusRequestTimeout, "request_timeout"},
	tooManyRequests:     {http.StatusTooManyRequests, openai.RateLimited},
	dstack.Internal:     {http.StatusInternalServerError, "internal_error"},
	badGateway:          {http.StatusBadGateway, "bad_gateway"},
	dstack.Unavailable:  {http.StatusServiceUnavailable, "service_unavailable"},
	dstack.Timeout:      {http.StatusGatewayTimeout, "timeout"},
}

// writeError sends an error: as OpenAI does on the model endpoint, as a page to
// browsers, else as JSON.
func (p *proxyRequest) writeError(e *responseError) {
	kind, ok := errorKinds[e.Kind]
	if !ok {
		panic("gateway: no status for an error of kind " + string(e.Kind))
	}
	if p.body != nil {
		p.body.abandon()
	}
	if p.model != nil && p.model.keepAlive.started {
		p.model.keepAlive.writeErrorEvent(e.problem())
		return
	}
	if p.model != nil && p.response.endPadding() {
		p.model.cutWithError(e.problem())
	}
	h := p.response.Header()
	h.Set("X-Request-Id", p.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if e.challenge != "" {
		h.Set("Www-Authenticate", e.challenge)
	}
	if len(e.allow) > 0 {
		h.Set("Allow", strings.Join(e.allow, ", "))
	}
	switch {
	case e.isLasting:
		h.Set(shouldRetry, "false")
	case e.retryAfter > 0 || isRetryable[kind.status]:
		setRetryAfter(h, cmp.Or(e.retryAfter, defaultRetryAfter))
	}
	var err error
	switch {
	case p.destination.Models:
		err = p.writeModelError(e)
	case p.wantsSignIn(e):
		err = p.writeSignInPage(kind.status, p.r.URL.RequestURI(), "")
	case p.acceptsHTML():
		err = p.writeErrorPage(e, kind.status)
	default:
		err = p.writeErrorJSON(e, kind.status)
	}
	if err != nil {
		p.gateway.log.Debug("error not delivered", "id", p.id, "err", err)
	}
}

func (p *proxyRequest) writeModelError(e *responseError) error {
	openai.AllowOrigin(p.response.Header())
	problem := e.problem()
	if p.model.isAnthropic() {
		return openai.WriteAnthropicError(&p.response, problem.Status, problem.Message)
	}
	return problem.Write(&p.response)
}

func (p *proxyRequest) writeErrorJSON(e *responseError, status int) error {
	type wireError struct {
		Kind    dstack.Kind `json:"kind"`
		Message string      `json:"message"`
		Hint    string      `json:"hint,omitempty"`
	}
	var body bytes.Buffer
	out := json.NewEncoder(&body)
	out.SetEscapeHTML(false) // it is read in terminals, and never as a page
	err := out.Encode(struct {
		Error wireError `json:"error"`
	}{wireError{e.Kind, e.Message, e.Hint}})
	if err != nil {
		return err
	}
	return p.response.writeAll(status, "application/json", body.Bytes())
}

var errorBody = template.Must(template.New("error").Parse(`<p>{{.Message}}</p><p>{{.Hint}}</p>` +
	`{{if .Address}}<p>Open it by its name, where you can sign in: <a href="{{.Address}}">{{.Address}}</a></p>{{end}}
`))

// writeErrorPage sends a page. While a service is not ready, the page reloads
// itself. Services below one host cannot have sessions of their own, so there a
// browser without a token is sent to the service's name.
func (p *proxyRequest) writeErrorPage(e *responseError, status int) error {
	data := struct{ Message, Hint, Address string }{Message: e.Message, Hint: e.Hint}
	if e.Kind == dstack.Unauthorized {
		data.Address = p.nameURL()
	}
	content := page.Page{Title: strconv.Itoa(status) + " " + http.StatusText(status), Body: errorBody, Data: data}
	if status == http.StatusServiceUnavailable {
		content.Refresh = e.retryAfter
	}
	return content.Write(&p.response, status)
}

// problem is the error in the form of the model endpoint.
func (e *responseError) problem() *openai.Problem {
	kind := errorKinds[e.Kind]
	problem := &openai.Problem{Status: kind.status, Code: kind.code, Param: e.param, Message: e.Message}
	if e.code != "" {
		problem.Code = e.code
	}
	if e.Hint != "" {
		problem.Message += ": " + e.Hint
	}
	return problem
}

func internalError() *responseError {
	return &responseError{details: details{Kind: dstack.Internal, Message: "the gateway failed",
		Hint: "see the server's log for this request id"}}
}
