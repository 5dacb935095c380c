package gateway

import (
	"net"
	"net/http"
	"strings"

	"dstack/internal/openai"
)

// forwardHeaders sets the headers that tell a replica about its client, and removes
// whatever the client wrote there itself, in any spelling that an application
// may take for them.
func (x *exchange) forwardHeaders(h http.Header) {
	for name := range h {
		if forged(name) {
			delete(h, name)
		}
	}
	if x.own {
		h.Del("Authorization") // it is the platform's token, and no replica's business
		if x.means.Models {
			h.Del(openai.AnthropicKey)
		}
	}
	if upgrade := h.Get("Upgrade"); upgrade != "" && (x.means.Models || !strings.EqualFold(upgrade, "websocket")) {
		// Other protocols, h2c above all, would carry requests past the gateway.
		h.Del("Connection")
		h.Del("Upgrade")
	}
	h.Del("Http2-Settings")

	client, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		client = "unknown"
	}
	node, proto := client, "http"
	if strings.Contains(client, ":") {
		node = `"[` + client + `]"`
	}
	if x.r.TLS != nil {
		proto = "https"
	}
	h["X-Forwarded-For"] = []string{client}
	h["X-Real-Ip"] = []string{client}
	h["X-Forwarded-Host"] = []string{x.r.Host}
	h["X-Forwarded-Proto"] = []string{proto}
	h["Forwarded"] = []string{`for=` + node + `;host="` + x.r.Host + `";proto=` + proto}
	if x.base() != "" {
		h["X-Forwarded-Prefix"] = []string{x.base()}
	}
	h["X-Request-Id"] = []string{x.id}
}

// forged says whether only the gateway may set a header of this name. Many
// applications cannot tell X-Real-IP from x_real_ip.
func forged(name string) bool {
	if name == "" {
		return false
	}
	switch name[0] | 0x20 {
	case 'f':
		return plainName(name) == "forwarded"
	case 'x':
		plain := plainName(name)
		return strings.HasPrefix(plain, "x-forwarded") || strings.HasPrefix(plain, "x-dstack-") ||
			plain == "x-real-ip" || plain == "x-request-id"
	default:
		return false
	}
}

// plainName is a header's name in lower case with a dash for whatever is
// neither a letter nor a digit.
func plainName(name string) string {
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

// answerHeaders makes a replica's headers fit to be sent from here.
func (x *exchange) answerHeaders(h http.Header) {
	for name := range h {
		// They would steer a proxy before us. Buffering is harmless.
		if strings.HasPrefix(name, "X-Accel-") && name != "X-Accel-Buffering" {
			delete(h, name)
		}
	}
	h["X-Request-Id"] = []string{x.id}
	if cookies := h["Set-Cookie"]; len(cookies) > 0 {
		for i, c := range cookies {
			cookies[i] = scopeCookie(c, x.base())
		}
	}
	if base := x.base(); base != "" {
		for _, name := range []string{"Location", "Content-Location"} {
			if to := h.Get(name); to != "" {
				h.Set(name, addPathPrefix(base, x.r.Host, to))
			}
		}
	}
}
