package gateway

import (
	"crypto/sha256"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/page"
)

// Paths at the host of every service that are the gateway's. A replica sees no
// request below gatewayPath, even if its service asks for no token: a form that
// a browser still shows would send it one.
const (
	gatewayPath = "/.dstack/"
	signInPath  = gatewayPath + "sign-in"
	signOutPath = gatewayPath + "sign-out"
)

const (
	maxSignInBody  = 8 << 10
	signInBodyTime = 10 * time.Second
)

var signInBody = template.Must(template.New("sign-in").Parse(`{{if .Problem}}<p class="error">{{.Problem}}</p>
{{end}}<p><b>{{.Run}}</b> asks for a dstack token or a key of the project {{.Project}}. ` +
	`Yours is in <code>~/.dstack/config.yml</code>; <code>apply</code> and <code>ps</code> use the same one.</p>
<form method="post" action="` + signInPath + `"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required autofocus>
<input type="hidden" name="next" value="{{.Next}}"><button>Sign in</button></form>
<p>This browser then stays signed in to this service alone, for seven days or until the token is revoked.
The token is not sent to the service.</p>
`))

var signOutBody = template.Must(template.New("sign-out").Parse(`{{if .Done}}
<p>This browser is signed out of {{.Run}}.</p>
<p><a href="/">Open {{.Run}} again</a></p>{{else}}<form method="post" action="` + signOutPath +
	`"><p>Sign this browser out of {{.Run}}?</p><button>Sign out</button></form>{{end}}
`))

// signInView is what the pages say.
type signInView struct {
	Project, Run string
	Next         string // path and query to go on with
	Problem      string
	Done         bool
}

// serveGatewayPath answers a request below gatewayPath at the host of a service.
func (p *proxyRequest) serveGatewayPath() (bool, error) {
	if !p.isByName() || !strings.HasPrefix(p.r.URL.Path, gatewayPath) {
		return false, nil
	}
	serve := map[string]func() error{
		http.MethodGet + signInPath:   func() error { return p.writeSignInPage(http.StatusOK, "/", "") },
		http.MethodPost + signInPath:  p.signIn,
		http.MethodGet + signOutPath:  func() error { return p.writeSignOutPage(false) },
		http.MethodPost + signOutPath: p.signOut,
	}[p.r.Method+p.r.URL.Path]
	switch {
	case serve != nil:
		return true, serve()
	case p.r.URL.Path == signInPath || p.r.URL.Path == signOutPath:
		return true, &responseError{allow: []string{http.MethodGet, http.MethodPost}, details: details{Kind: badMethod,
			Message: "this path takes GET and POST, not " + p.r.Method}}
	}
	return true, &responseError{details: details{Kind: dstack.NotFound, Message: "there is no such page",
		Hint: "paths below " + gatewayPath + " are the gateway's: there are " + signInPath + " and " + signOutPath}}
}

// signIn checks the token of the form, and starts a session.
func (p *proxyRequest) signIn() error {
	if !p.mayPostForm() {
		return newForeignPageError()
	}
	caller := p.callerKey(signInLimit.Key)
	if wait := p.gateway.signIns.take(caller, time.Now()); wait > 0 {
		seconds := int(wait/time.Second) + 1
		setRetryAfter(p.response.Header(), seconds)
		return p.writeSignInPage(http.StatusTooManyRequests, "/",
			"There were too many wrong tokens. Try again in "+strconv.Itoa(seconds)+" seconds.")
	}
	form, err := p.readForm()
	if err != nil {
		return err
	}
	view := p.gateway.loads.view.Load()
	if view == nil {
		return &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable, Message: "the gateway is starting"}}
	}
	token, next := sha256.Sum256([]byte(strings.TrimSpace(form.Get("token")))), localPath(form.Get("next"))
	found, ok := view.findCredential(token, time.Now())
	if !ok {
		p.logRefusedSignIn("unknown token")
		return p.writeSignInPage(http.StatusUnauthorized, next, "This token is not valid for this server.")
	}
	if err := found.check(p.destination); err != nil {
		p.logRefusedSignIn(err.Error())
		return p.writeSignInPage(http.StatusForbidden, next, capitalize(err.Error())+".")
	}
	p.gateway.signIns.giveBack(caller)
	p.startSession(token)
	p.redirect(next)
	return nil
}

// capitalize returns a message of an error as a sentence begins.
func capitalize(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func (p *proxyRequest) logRefusedSignIn(why string) {
	p.gateway.log.Info("sign-in refused", slog.String("id", p.id), slog.String("from", p.client.AddressText()),
		slog.String("why", why),
		slog.String("project", p.destination.Project), slog.String("run", p.destination.Run))
}

// signOut ends the session of the browser.
func (p *proxyRequest) signOut() error {
	if !p.mayPostForm() {
		return newForeignPageError()
	}
	p.endSession()
	return p.writeSignOutPage(true)
}

// readForm reads the body, which a browser sends for a form.
func (p *proxyRequest) readForm() (url.Values, error) {
	invalid := func(message string) error {
		return &responseError{details: details{Kind: dstack.Invalid, Message: message,
			Hint: "programs send the header Authorization: Bearer <token> instead"}}
	}
	contentType, _, _ := mime.ParseMediaType(p.r.Header.Get("Content-Type")) // a malformed one is no type
	if contentType != "application/x-www-form-urlencoded" || p.body == nil {
		return nil, invalid("this path takes the form of the sign-in page")
	}
	p.body.setPaceDeadline(time.Now().Add(signInBodyTime))
	text, err := io.ReadAll(io.LimitReader(p.r.Body, maxSignInBody+1))
	if err != nil {
		return nil, bodyError()
	}
	if len(text) > maxSignInBody {
		return nil, invalid("the form is too large")
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, invalid("the form is malformed")
	}
	return form, nil
}

// redirect sends a browser to a path of the same host.
func (p *proxyRequest) redirect(path string) {
	h := p.response.Header()
	h.Set("Location", path)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", p.id)
	p.response.WriteHeader(http.StatusSeeOther)
}

// localPath returns a path and query that a browser can only understand as one
// of this host, or "/". Browsers take // and /\ for the beginning of a host, and
// drop tabs and line ends.
func localPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.HasPrefix(next, gatewayPath) ||
		strings.ContainsFunc(next, func(c rune) bool { return c <= ' ' || c == '\\' || c >= 0x7f }) {
		return "/"
	}
	if u, err := url.ParseRequestURI(next); err != nil || u.Host != "" || u.Scheme != "" {
		return "/"
	}
	return next
}

// wantsSignIn reports whether a browser without a session opens a page: people
// then get a form, programs an error.
func (p *proxyRequest) wantsSignIn(e *responseError) bool {
	mode := p.r.Header.Get("Sec-Fetch-Mode")
	return e.Kind == dstack.Unauthorized && p.isByName() && p.r.Method == http.MethodGet && p.acceptsHTML() &&
		len(p.r.Header["Authorization"]) == 0 && len(p.r.Header["Upgrade"]) == 0 && (mode == "" || mode == "navigate")
}

// acceptsHTML reports whether a browser loads a page.
func (p *proxyRequest) acceptsHTML() bool {
	return strings.Contains(p.r.Header.Get("Accept"), "text/html")
}

// writeSignInPage sends the form. next is where a browser goes on.
func (p *proxyRequest) writeSignInPage(status int, next, problem string) error {
	return p.writePage(status, page.Page{Title: "Sign in to " + p.destination.Run, Body: signInBody, Data: signInView{
		Project: p.destination.Project, Run: p.destination.Run, Next: localPath(next), Problem: problem}})
}

func (p *proxyRequest) writeSignOutPage(done bool) error {
	return p.writePage(http.StatusOK, page.Page{Title: "Sign out of " + p.destination.Run, Body: signOutBody,
		Data: signInView{Run: p.destination.Run, Done: done}})
}

// writePage sends a page of the gateway itself.
func (p *proxyRequest) writePage(status int, content page.Page) error {
	if p.body != nil {
		p.body.abandon()
	}
	p.response.Header().Set("X-Request-Id", p.id)
	p.response.Header().Set("Vary", "Accept, Cookie")
	p.logUndelivered(content.Write(&p.response, status))
	return nil
}

func newForeignPageError() error {
	return &responseError{details: details{Kind: dstack.Forbidden, Message: "a page of another host made this request",
		Hint: "a browser's session is for pages of this host only; programs send the header Authorization: Bearer <token>"}}
}
