package gateway

import (
	"bytes"
	"net/http"
	"net/url"
	"path"
	"strings"

	"dstack/internal/decide/route"
	"dstack/internal/httpwire"
	"dstack/internal/openai"
	"dstack/internal/relay"
	"dstack/internal/spec"
)

// send sends the request to the replica that counts it.
func (f *fastRequest) send() relay.Step {
	x, r := f.x, f.acquirer.replica
	if f.model.isCall {
		if step, isReady := f.prepareModel(); !isReady {
			return step
		}
	}
	if f.mustRecheckToken() {
		f.access.hidesToken = f.carriesPlatformToken(f.access.view)
	}
	hidesKey := f.access.hidesToken && f.conn.destination.Models
	for i := range x.Request.Fields {
		switch field := &x.Request.Fields[i]; field.Kind {
		case httpwire.Authorization:
			field.Drop = field.Drop || f.access.hidesToken
		case httpwire.APIKey:
			field.Drop = field.Drop || hidesKey
		default: // passed on, unless it is dropped already
		}
	}
	x.Replica, x.Target = r.target.Endpoint.Address, f.targetAt(r.route)
	f.extra = append(append(f.extra[:0], f.forwarded...), "X-Request-Id: "...)
	f.extra = append(append(f.extra, f.id...), "\r\n"...)
	x.Extra = f.extra
	x.NoInformational = f.conn.destination.Models
	if !f.sent {
		f.replays = !f.conn.destination.Models && x.Request.Length == 0 && isRepeatable(x.Request.Method)
		x.IsReplayable = f.replays || f.isResendable()
	}
	if next := f.nextTime(); !next.IsZero() || !f.acquirer.deadline.IsZero() {
		x.WakeAt(next)
	}
	f.sent = true
	return relay.Send
}

// mustRecheckToken reports whether a newer view may know the token that a public service would get.
func (f *fastRequest) mustRecheckToken() bool {
	return !f.access.hasToken && f.fields.authorizations > 0 && f.access.view.Version != f.conn.version
}

// targetAt is the target of the request as a replica of the route sees it; nil: as the client sent it.
func (f *fastRequest) targetAt(r *route.Route) []byte {
	switch d := &f.conn.destination; {
	case d.Models:
		return f.modelTarget(r)
	case d.Base != "":
		return f.x.Request.Target[len(d.Base):]
	default:
		return nil
	}
}

// isRepeatable reports whether HTTP allows to send a request with a method twice.
func isRepeatable(method []byte) bool {
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// isResendable reports whether a request may be sent again to the same replica where a kept connection breaks: as http.Transport
// does, one without a body that its client marked so. A call to a model may, too.
func (f *fastRequest) isResendable() bool {
	if f.conn.destination.Models {
		return true
	}
	if f.x.Request.Length != 0 {
		return false
	}
	for i := range f.x.Request.Fields {
		name := f.x.Request.Fields[i].Name
		if bytes.EqualFold(name, idempotencyKey) || bytes.EqualFold(name, xIdempotencyKey) {
			return true
		}
	}
	return false
}

var idempotencyKey, xIdempotencyKey = []byte("Idempotency-Key"), []byte("X-Idempotency-Key")

// rewriteResponse prepares a replica's fields for the client, as rewriteResponseHeaders does on the slow path.
func (f *fastRequest) rewriteResponse() {
	f.endHold()
	x, prefix := f.x, f.conn.pathPrefix()
	f.responseExtra = append(append(append(f.responseExtra[:0], "X-Request-Id: "...), f.id...), "\r\n"...)
	rewritesCookies := f.mustRewriteCookies(prefix)
	for i := range x.Response.Fields {
		field := &x.Response.Fields[i]
		switch field.Kind {
		case httpwire.RequestID:
			field.Drop = true
		case httpwire.Accel:
			field.Drop = true
		case httpwire.SetCookie:
			if rewritesCookies && !field.Drop {
				field.Drop = true
				f.addCookie(string(field.Value), prefix)
			}
		case httpwire.Location:
			if prefix != "" && !field.Drop {
				field.Drop = true
				hosts := []string{f.conn.host, f.client.Origin.Host}
				f.responseExtra = appendField(f.responseExtra, string(field.Name), addPathPrefix(prefix, hosts, string(field.Value)))
			}
		default:
			if len(field.Name) == len(warningName) && bytes.EqualFold(field.Name, warningName) {
				field.Drop = true // only the gateway warns
			}
		}
	}
	if f.conn.destination.Models {
		f.respondModel()
	}
	x.ResponseExtra = f.responseExtra
}

var warningName = []byte(openai.WarningHeader)

// mustRewriteCookies reports whether a cookie of the response is not to be passed on as it is.
func (f *fastRequest) mustRewriteCookies(prefix string) bool {
	for i := range f.x.Response.Fields {
		field := &f.x.Response.Fields[i]
		if field.Kind == httpwire.SetCookie && (prefix != "" || bytes.Contains(field.Value, sessionCookieName) || mayHaveDomain(field.Value)) {
			return true
		}
	}
	return false
}

// mayHaveDomain reports whether a cookie may have the attribute Domain.
func mayHaveDomain(cookie []byte) bool {
	for rest := cookie; len(rest) >= len("domain"); rest = rest[1:] {
		if rest[0]|0x20 == 'd' && bytes.EqualFold(rest[:len("domain")], domainAttribute) {
			return true
		}
	}
	return false
}

var domainAttribute = []byte("domain")

func (f *fastRequest) addCookie(cookie, prefix string) {
	if !isSessionCookie(cookie) {
		f.responseExtra = appendField(f.responseExtra, "Set-Cookie", scopeCookie(cookie, prefix))
	}
}

// limitedPath is the path, by which limits are chosen, of a request for a replica of a route.
func (f *fastRequest) limitedPath(r *route.Route) string {
	target := f.targetAt(r)
	if target == nil {
		target = f.x.Request.Target
	}
	escaped, _, _ := strings.Cut(string(target), "?")
	unescaped, _ := url.PathUnescape(escaped) // isPlain has checked it
	return path.Clean("/" + unescaped)
}

// callerKey identifies the caller for a limit.
func (f *fastRequest) callerKey(key spec.RateLimitKey) callerKey {
	if key.Type != "header" {
		return addressKey(f.client.Address)
	}
	var values []string
	if strings.EqualFold(key.Header, "Host") {
		values = []string{f.conn.host}
	} else {
		name := []byte(key.Header)
		for i := range f.x.Request.Fields {
			if field := &f.x.Request.Fields[i]; bytes.EqualFold(field.Name, name) {
				values = append(values, string(field.Value))
			}
		}
	}
	return headerKey(key.Header, values)
}
