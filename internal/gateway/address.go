package gateway

import (
	"strings"

	"dstack/internal/origin"
)

// scheme returns the scheme of the URL that the client used.
func (p *proxyRequest) scheme() string {
	if p.destination.Gateway != "" {
		return p.client.Origin.Scheme
	}
	return p.gateway.site.Scheme(p.client.Origin.Scheme, p.r.Host)
}

// nameURL returns the address by name of what a request names by path, or "" if
// the client can resolve no such name.
func (p *proxyRequest) nameURL() string {
	if p.pathPrefix() == "" || !isLabel(p.destination.Run) || !isLabel(p.destination.Project) {
		return ""
	}
	to := p.gateway.site.URLs(origin.ReaderOf(p.r, p.gateway.proxies)).RunByName(p.destination.Project, p.destination.Run)
	if to == "" {
		return ""
	}
	to = strings.TrimSuffix(to, "/") + p.r.URL.EscapedPath()[len(p.pathPrefix()):]
	if p.r.URL.RawQuery != "" {
		to += "?" + p.r.URL.RawQuery
	}
	return to
}

// isLabel reports whether a name can be a label of a host name.
func isLabel(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
