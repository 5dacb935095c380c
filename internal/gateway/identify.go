package gateway

import (
	"net/http"

	"dstack/internal/decide/route"
	"dstack/internal/origin"
)

// Serves reports whether a request is for the gateway: by its Host header alone,
// whatever name resolved to the address, else by its path.
func (g *Gateway) Serves(r *http.Request) bool {
	_, ok := g.identify(r)
	return ok
}

// identify finds what a request is for: at a gateway of a project, or at the server's own addresses.
func (g *Gateway) identify(r *http.Request) (route.Destination, bool) {
	if d, ok := g.index().ByHost(g.site, r.Host); ok {
		return d, true
	}
	return g.site.ByPath(r.URL.EscapedPath())
}

// index returns the index of the latest route table; nil: there is none yet.
func (g *Gateway) index() *route.Index {
	if v := g.loads.view.Load(); v != nil {
		return v.Index
	}
	return nil
}

// FindGateway returns the gateway of a project at whose domain a host is; ok says that there is one.
func (g *Gateway) FindGateway(host string) (found route.Gateway, ok bool) {
	at, _ := g.index().FindGateway(host)
	if at == nil {
		return route.Gateway{}, false
	}
	return *at, true
}

// Ready returns a channel that is closed once the gateway has a route table.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// clientOf returns who sent a request. The trusted proxies are those of the gateway of a project, where it has its
// own. A gateway with a certificate has https alone, whatever proxies say.
func (g *Gateway) clientOf(r *http.Request, d route.Destination) route.Client {
	if d.Gateway == "" {
		return origin.ClientOf(r, g.proxies)
	}
	at := g.index().Gateway(d.Gateway)
	client := origin.ClientOf(r, g.proxiesFor(d))
	if named, _ := g.index().FindGateway(r.Host); named != nil && named.ID == d.Gateway {
		at = named // an earlier domain may be served otherwise
	}
	if at != nil && !at.IsPlain {
		client.Origin.Scheme = "https"
	}
	return client
}

// proxiesFor returns the proxies that are trusted at a destination.
func (g *Gateway) proxiesFor(d route.Destination) route.Proxies {
	if d.Gateway == "" {
		return g.proxies
	}
	if at := g.index().Gateway(d.Gateway); at != nil && at.TrustedProxies != nil {
		return route.Proxies{Trusted: at.TrustedProxies}
	}
	return route.Proxies{Trusted: g.ofGateways}
}
