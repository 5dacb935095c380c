// Package origin finds out which URL a client used for its request.
package origin

import (
	"net"
	"net/http"
	"net/netip"

	"dstack/internal/decide/route"
)

// ReaderOf returns the client of a request as the reader of its response: the
// origin of the URL that it used, and whether it is on the server's machine. An
// invalid Host header leaves the origin zero.
func ReaderOf(r *http.Request) route.Reader {
	if !route.IsValidHost(r.Host) {
		return route.Reader{}
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return route.Reader{Origin: route.Origin{Scheme: scheme, Host: r.Host}, IsLocal: isLocal(r)}
}

// isLocal reports whether a request came over loopback, to a loopback address,
// and not through a proxy, which may have set that address itself.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback() && route.IsLoopback(r.Host)
}
