package frontend

import (
	"net"
	"net/http"
	"strings"
)

// unknownName says that a gateway serves nothing at the host of a request.
var unknownName = refusal{Kind: "not_found", Message: "this address names no service", Hint: "services are at <run>.<domain>",
	status: http.StatusNotFound}

// servePlain serves the http port. A name with a certificate is never served without TLS: a client is sent to https, or
// told that there is no certificate yet.
func (f *Frontend) servePlain(w http.ResponseWriter, r *http.Request) {
	name := hostName(r.Host)
	switch f.options.Find(r.Host) {
	case PlainName:
		f.options.Handler.ServeHTTP(w, r)
		return
	case SecureName:
	default:
		unknownName.write(w, r)
		return
	}
	if !f.options.Covers(name) {
		message := "there is no certificate for " + name + " yet"
		if missing := f.options.WhatIsMissing(name); missing != "" {
			message += ": " + missing
		}
		w.Header().Set("Retry-After", "10")
		refusal{Kind: "unavailable", Message: message, Hint: "use the address that dstack ps shows until then",
			status: http.StatusServiceUnavailable}.write(w, r)
		return
	}
	path := r.URL.RequestURI()
	if !strings.HasPrefix(path, "/") { // OPTIONS *
		path = "/"
	}
	h := w.Header()
	h.Set("Location", "https://"+f.withPort(name)+path)
	// The redirect is temporary: the gateway may serve http alone tomorrow.
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// withPort returns the host of a URL with https.
func (f *Frontend) withPort(name string) string {
	if f.options.HTTPSPort == 443 {
		return name
	}
	return net.JoinHostPort(name, portText(f.options.HTTPSPort))
}

// serveSecure serves the https port.
func (f *Frontend) serveSecure(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || hostName(r.Host) != hostName(r.TLS.ServerName) {
		// Browsers reuse a connection for other names that its certificate covers, and open a new one after this status.
		refusal{Kind: "misdirected_request", Message: "this connection was opened for another name",
			Hint: "the Host header must have the name that TLS was started with", status: http.StatusMisdirectedRequest}.write(w, r)
		return
	}
	if f.options.Find(r.Host) == UnknownName {
		unknownName.write(w, r)
		return
	}
	f.options.Handler.ServeHTTP(w, r)
}

// hostName returns the name in a Host header or in a TLS handshake: without port and final dot, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
