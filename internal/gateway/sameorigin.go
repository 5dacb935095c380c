package gateway

import (
	"net/http"
	"net/url"
	"strings"
)

// mayUseCookie reports whether a session cookie may authorize a request. Browsers
// add cookies to requests that pages of other hosts make; SameSite=Lax keeps
// back those of other sites, but neighbours below the domain are the same site.
// So the request must come from a page of this host or from the user: what a
// user follows from elsewhere may only load a whole page.
func (p *proxyRequest) mayUseCookie() bool {
	switch p.requestOrigin() {
	case originSame:
		return true
	case originOther:
		return p.isSafe() && p.isPageLoad()
	case originUnknown: // browsers always send an Origin with the others
		return p.isSafe()
	}
	return false
}

// mayPostForm reports whether a form of the gateway may have sent a request: it
// does not come from a page of another host. Programs say nothing.
func (p *proxyRequest) mayPostForm() bool { return p.requestOrigin() != originOther }

// isSafe reports whether a request only reads. A WebSocket sends, too.
func (p *proxyRequest) isSafe() bool {
	switch p.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return len(p.r.Header["Upgrade"]) == 0
	}
	return false
}

// isPageLoad reports whether a browser loads a page that its user will see as a
// whole, not in the frame of another page.
func (p *proxyRequest) isPageLoad() bool {
	destination := p.r.Header.Get("Sec-Fetch-Dest")
	return p.r.Header.Get("Sec-Fetch-Mode") == "navigate" && (destination == "" || destination == "document")
}

// requestOrigin says which page made a request.
type requestOrigin int

const (
	originUnknown requestOrigin = iota // no browser, or an old one
	originSame                         // of the same host, or the user
	originOther
)

func (p *proxyRequest) requestOrigin() requestOrigin {
	origins, site := p.r.Header["Origin"], p.r.Header.Get("Sec-Fetch-Site")
	switch {
	case len(origins) > 1:
		return originOther
	case len(origins) == 1 && origins[0] != "null":
		if p.isOwnOrigin(origins[0]) {
			return originSame
		}
		return originOther
	case site == "same-origin", site == "none" && len(origins) == 0:
		return originSame
	case site != "" || len(origins) == 1:
		return originOther
	}
	return originUnknown
}

// isOwnOrigin reports whether an Origin header is that of the request's own host.
// Where the client is known to use https, a page without it is another one.
func (p *proxyRequest) isOwnOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || p.isSecure() && u.Scheme != "https" {
		return false
	}
	port := ":80"
	if u.Scheme == "https" {
		port = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(u.Host, port), strings.TrimSuffix(p.r.Host, port))
}
