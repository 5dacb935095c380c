package gateway

import (
	"net/http"

	"dstack/internal/decide/route"
)

// Serves reports whether a request is for the gateway: by its Host header alone,
// whatever name resolved to the address, else by its path.
func (g *Gateway) Serves(r *http.Request) bool {
	_, ok := g.identify(r)
	return ok
}

func (g *Gateway) identify(r *http.Request) (route.Destination, bool) {
	if d, ok := g.site.ByHost(r.Host); ok {
		return d, true
	}
	return g.site.ByPath(r.URL.EscapedPath())
}
