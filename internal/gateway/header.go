package gateway

import (
	"net/http"
	"slices"
	"strings"

	"dstack/internal/decide/route"
	"dstack/internal/openai"
)

// setForwardedHeaders sets the headers that tell a replica about the client, and
// removes the client's own, in any spelling that an application may take for
// them.
func (p *proxyRequest) setForwardedHeaders(h http.Header) {
	for name := range h {
		if isGatewayHeader(name) {
			delete(h, name)
		}
	}
	removeSessionCookies(h)
	if p.acquirer.access.hidesToken {
		h.Del("Authorization")
		if p.destination.Models {
			h.Del(openai.AnthropicKey)
		}
	}
	if upgrade := h.Get("Upgrade"); upgrade != "" && (p.destination.Models || !strings.EqualFold(upgrade, "websocket")) {
		// Other protocols, h2c above all, would carry requests that the gateway does
		// not see.
		h.Del("Connection")
		h.Del("Upgrade")
	}
	h.Del("Http2-Settings")
	if p.destination.Models {
		h.Del("Expect") // the gateway has read the body
	}

	values := forwardedValues(p.client, p.id)
	for i, name := range forwardedHeaders {
		h[name] = values[i : i+1 : i+1] // one allocation for all of them
	}
	if p.pathPrefix() != "" {
		h["X-Forwarded-Prefix"] = []string{p.pathPrefix()}
	}
}

// forwardedHeaders are the headers that every request to a replica has.
var forwardedHeaders = [...]string{"X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Forwarded-Port", "Forwarded", "X-Request-Id"}

// forwardedValues are the values of forwardedHeaders.
func forwardedValues(c route.Client, id string) [len(forwardedHeaders)]string {
	return [...]string{c.ForwardedFor(), c.AddressText(), c.Origin.Host, c.Origin.Scheme, c.Port(), c.Forwarded(), id}
}

// isGatewayHeader reports whether only the gateway may set a header of this
// name. Many applications do not distinguish X-Real-IP from x_real_ip.
func isGatewayHeader(name string) bool {
	if name == "" {
		return false
	}
	switch name[0] | 0x20 {
	case 'f':
		return normalizedName(name) == "forwarded"
	case 'x':
		normalized := normalizedName(name)
		return strings.HasPrefix(normalized, "x-forwarded") || strings.HasPrefix(normalized, "x-dstack-") ||
			normalized == "x-real-ip" || normalized == "x-request-id"
	default:
		return false
	}
}

// normalizedName returns a header's name in lower case, with a dash for
// everything but letters and digits.
func normalizedName(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + ('a' - 'A')
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		default:
			b[i] = '-'
		}
	}
	return string(b)
}

// rewriteResponseHeaders prepares a replica's headers for the client.
func (p *proxyRequest) rewriteResponseHeaders(h http.Header) {
	for name := range h {
		// They control a proxy in front of the gateway. Buffering is harmless.
		if strings.HasPrefix(name, "X-Accel-") && name != "X-Accel-Buffering" {
			delete(h, name)
		}
	}
	h["X-Request-Id"] = []string{p.id}
	delete(h, openai.WarningHeader) // only the gateway warns
	if cookies := slices.DeleteFunc(h["Set-Cookie"], isSessionCookie); len(cookies) > 0 {
		h["Set-Cookie"] = cookies
		for i, c := range cookies {
			cookies[i] = scopeCookie(c, p.pathPrefix())
		}
	} else {
		delete(h, "Set-Cookie")
	}
	if p.acquirer.access.bySession {
		keepPrivate(h)
	}
	if prefix := p.pathPrefix(); prefix != "" {
		for _, name := range []string{"Location", "Content-Location"} {
			if to := h.Get(name); to != "" {
				h.Set(name, addPathPrefix(prefix, []string{p.r.Host, p.client.Origin.Host}, to))
			}
		}
	}
}

// keepPrivate tells caches in front of the gateway that a response is for one
// caller. Without a session they know it from the Authorization header, which
// replicas rely on.
func keepPrivate(h http.Header) {
	said := strings.Join(h["Cache-Control"], ", ")
	for directive := range strings.SplitSeq(strings.ToLower(said), ",") {
		if directive = strings.TrimSpace(directive); directive == "private" || directive == "no-store" {
			return
		}
	}
	if said != "" {
		said += ", "
	}
	h["Cache-Control"] = []string{said + "private"}
}
