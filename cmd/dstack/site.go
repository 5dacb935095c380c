package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
	"dstack/internal/httpwire"
	"dstack/internal/origin"
	"dstack/internal/relay"
	"dstack/internal/server"
)

// checkAddresses checks DSTACK_SERVER_URL and DSTACK_GATEWAY_DOMAIN.
func (o *serverOptions) checkAddresses() error {
	if o.publicURL != "" {
		u, err := url.Parse(o.publicURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || !route.IsValidHost(u.Host) ||
			u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return newInvalidError("DSTACK_SERVER_URL is not the URL of a server: "+o.publicURL,
				"write a scheme and a host, such as https://dstack.example.com")
		}
	}
	if o.domain != "" && (!route.IsValidHost(o.domain) || strings.ContainsAny(o.domain, ":[]")) {
		return newInvalidError("DSTACK_GATEWAY_DOMAIN is not a domain: "+o.domain,
			"write a name without a port, such as apps.example.com")
	}
	return nil
}

// site returns where the server and its services are published.
func (o *serverOptions) site() route.Site {
	s := route.Site{Domain: o.domain, Main: server.DefaultProject}
	if u, err := url.Parse(o.serverURL()); err == nil {
		s.Server = route.Origin{Scheme: strings.ToLower(u.Scheme), Host: strings.ToLower(u.Host)}
	}
	return s
}

// loopback are the addresses of this machine, where a proxy with TLS usually runs.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// trustedProxies returns the proxies whose headers about clients are believed: the configured ones, else those on this
// machine if DSTACK_SERVER_URL says that there is a proxy with TLS, else none.
func (o *serverOptions) trustedProxies(config server.Config) []netip.Prefix {
	switch {
	case config.TrustedProxies != nil:
		return config.TrustedProxies
	case strings.HasPrefix(strings.ToLower(o.publicURL), "https://"):
		return loopback
	default:
		return nil
	}
}

// warnOfUntrustedProxy logs once that a request for the public URL came through a proxy that is not trusted: it may be the
// operator's own, which services then take for their only client.
func (d *daemon) warnOfUntrustedProxy(r *http.Request) {
	if len(r.Header["X-Forwarded-For"]) == 0 || !strings.EqualFold(r.Host, d.publicHost) {
		return
	}
	if client := origin.ClientOf(r, route.Proxies{Trusted: d.proxies}); len(client.Hops) == 0 {
		d.proxyWarning.Do(func() {
			d.hasWarned.Store(true)
			d.log.Warn("a request has X-Forwarded-For but does not come from a trusted proxy; "+
				"if it is yours, add its address to trusted_proxies in config.yml", "from", client.AddressText())
		})
	}
}

// mayWarn reports that warnOfUntrustedProxy has to look at a request.
func (d *daemon) mayWarn(x *relay.Exchange) bool {
	if d.publicHost == "" || d.hasWarned.Load() || !strings.EqualFold(string(x.Request.Host), d.publicHost) {
		return false
	}
	return !route.Proxies{Trusted: d.proxies}.IsTrusted(x.Client.Addr()) &&
		slices.ContainsFunc(x.Request.Fields, func(f httpwire.Field) bool { return f.Kind == httpwire.Forwarded })
}

// directorOptions returns the options of the fast path at a port of the server.
func (d *daemon) directorOptions(accepts func(host string, x *relay.Exchange) bool) gateway.DirectorOptions {
	return gateway.DirectorOptions{Accepts: accepts, IsLast: d.isReplaced, Began: func() { d.requests.begin() }, Ended: d.requests.end}
}
