package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// access is what one route table lets a request use.
type access struct {
	view       *view
	routes     []*route.Route  // where the request may go; empty while the model is not known
	hidesToken bool            // the Authorization header has a token of the platform, which replicas must not see
	bySession  bool            // the cookie of a browser's session authorized the request
	single     [1]*route.Route // memory for a list of one route
}

// only returns a list of one route.
func (a *access) only(r *route.Route) []*route.Route {
	a.single[0] = r
	return a.single[:]
}

// authorizeBy finds the routes of a request in a view, and makes sure that the
// caller may use them. A caller without access to a project does not learn
// whether a run exists.
func (a *access) authorizeBy(v *view, p *proxyRequest) error {
	if a.view == v && len(a.routes) > 0 {
		return nil // by the same table already
	}
	a.view, a.routes, a.bySession = v, nil, false
	p.setKey(nil)
	if p.destination.Models {
		a.hidesToken = true
		if err := a.checkToken(v, p); err != nil {
			return err
		}
		if !v.HasProject(p.destination.Project) { // a global admin's token opens every project
			return projectNotFound(p.destination.Project)
		}
		if p.model.name == "" {
			return nil
		}
		if !p.allowsModel(p.model.name) {
			p.countKey(false)
			return modelNotFound(p.model.name)
		}
		a.routes = v.Model(p.destination, p.model.name)
		if len(a.routes) == 0 {
			return modelNotFound(p.model.name)
		}
		return nil
	}
	r := v.Run(p.destination)
	if r == nil || r.Auth {
		if err := a.checkToken(v, p); err != nil {
			return err
		}
	}
	if r == nil {
		return runNotFound(p.destination)
	}
	a.hidesToken = r.Auth && !a.bySession || carriesPlatformToken(v, p.r.Header)
	a.routes = a.only(r)
	return nil
}

// checkToken makes sure that the caller's token is valid for the project: that of
// the request, else that of the browser's session. An application's own
// Authorization header does not end a session. The route table has all that
// this takes; no server is asked.
func (a *access) checkToken(v *view, p *proxyRequest) error {
	found, err := p.findCredential(v)
	if err != nil {
		session, ok := p.sessionCredential(v)
		if !ok {
			return err
		}
		if !p.mayUseCookie() {
			return newForeignPageError()
		}
		found, a.bySession = session, true
	}
	p.setKey(found.key)
	if err := found.check(p.destination); err != nil {
		p.countKey(false)
		return err
	}
	return nil
}

// allowsModel reports whether the request may use a model: with the token of a user
// all of the project, with a key for callers those that it is for.
func (p *proxyRequest) allowsModel(model string) bool {
	key := p.key()
	return key == nil || key.AllowsModel(p.destination.Project, model)
}

// findCredential returns the credential that a request has.
func (p *proxyRequest) findCredential(v *view) (credential, error) {
	token, ok := bearerToken(p.r.Header)
	if !ok && p.destination.Models && len(p.r.Header["Authorization"]) == 0 {
		if keys := p.r.Header[openai.AnthropicKey]; len(keys) == 1 {
			token, ok = keys[0], keys[0] != ""
		}
	}
	if !ok {
		return credential{}, &responseError{challenge: `Bearer realm="dstack"`, details: details{Kind: dstack.Unauthorized,
			Message: "this needs a token",
			Hint:    "send the header Authorization: Bearer <token>; yours is in ~/.dstack/config.yml"}}
	}
	found, ok := v.findCredential(sha256.Sum256([]byte(token)), time.Now())
	switch {
	case ok:
		return found, nil
	case v.TokensEnded:
		return credential{}, &responseError{retryAfter: 30, details: details{Kind: dstack.Unavailable,
			Message: "this gateway has had no answer of its server for too long, and accepts no tokens until it has",
			Hint:    "check the server, and the network between it and the gateway"}}
	}
	return credential{}, newInvalidTokenError(token)
}

// bearerToken returns the token of a request. With two Authorization headers
// there is none: which one counts is undefined.
func bearerToken(h http.Header) (string, bool) {
	values := h["Authorization"]
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	return token, ok && token != "" && strings.EqualFold(scheme, "bearer")
}

// maxTokenWords is in how many words of an Authorization header the gateway
// looks for a token of the platform.
const maxTokenWords = 8

// carriesPlatformToken reports whether a request to a public service has a
// token of the platform, in any spelling, which the service must not see.
// Tokens of the service itself are not known here and pass.
func carriesPlatformToken(v *view, h http.Header) bool {
	isKnown := func(token string) bool {
		digest := sha256.Sum256([]byte(token))
		return v.Grant(digest) != nil || v.Key(digest) != nil
	}
	for _, value := range h["Authorization"] {
		words := strings.Fields(value)
		for _, word := range words[:min(len(words), maxTokenWords)] {
			login, err := base64.StdEncoding.DecodeString(word)
			user, password, isBasic := strings.Cut(string(login), ":")
			if isKnown(word) || err == nil && isBasic && (isKnown(user) || isKnown(password)) {
				return true
			}
		}
	}
	return false
}

func runNotFound(d route.Destination) error {
	if d.IsEmpty() {
		return &responseError{details: details{Kind: dstack.NotFound,
			Message: "this address names no service",
			Hint:    "services are at <run>.<domain> or /proxy/services/<project>/<run>/"}}
	}
	return &responseError{details: details{Kind: dstack.NotFound,
		Message: "no service " + d.Run + " runs in the project " + d.Project,
		Hint:    "see what runs: dstack ps"}}
}

func projectNotFound(name string) error {
	return &responseError{details: details{Kind: dstack.NotFound, Message: "there is no project " + quoteName(name),
		Hint: "list the projects: dstack project list"}}
}

func modelNotFound(name string) error {
	return &responseError{code: "model_not_found", param: "model", details: details{Kind: dstack.NotFound,
		Message: "the model " + quoteName(name) + " does not exist or you do not have access to it"}}
}

// quoteName quotes a name from a request, shortened to fit a message.
func quoteName(name string) string {
	const maxName = 100
	if len(name) > maxName {
		name = name[:maxName] + "…"
	}
	return "`" + name + "`"
}
