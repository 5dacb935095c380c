// Package origin finds out who sent a request, and which URL it used.
package origin

import (
	"net"
	"net/http"
	"net/netip"

	"dstack/internal/decide/route"
)

// ClientOf returns who sent a request, behind the proxies that are trusted.
func ClientOf(r *http.Request, proxies route.Proxies) route.Client {
	return proxies.ClientOf(route.Request{Peer: peerOf(r), IsTLS: r.TLS != nil, Host: r.Host, Header: r.Header})
}

// ReaderOf returns the client of a request as the reader of its response: the
// origin of the URL that it used, and whether it is on the server's machine. An
// invalid Host header leaves the origin zero.
func ReaderOf(r *http.Request, proxies route.Proxies) route.Reader {
	o := ClientOf(r, proxies).Origin
	if !route.IsValidHost(o.Host) {
		return route.Reader{}
	}
	return route.Reader{Origin: o, IsLocal: isLocal(r)}
}

// peerOf returns the address of a request's connection, or zero.
func peerOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return address
}

// isLocal reports whether a request came over loopback, to a loopback address,
// and not through a proxy, which may have set that address itself.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	return peerOf(r).Unmap().IsLoopback() && route.IsLoopback(r.Host)
}
