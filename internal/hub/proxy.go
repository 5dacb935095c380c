package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// ProxyFunc returns the proxy for a request, or nil for none.
type ProxyFunc func(*http.Request) (*url.URL, error)

var errInvalidProxy = errors.New("HTTPS_PROXY or HTTP_PROXY is not the address of a proxy")

// proxyError is the error of a request through a proxy, for example that the
// proxy refuses it.
type proxyError struct {
	proxy string // host and port
	cause error
}

func (e *proxyError) Error() string { return "through the proxy " + e.proxy + ": " + e.cause.Error() }
func (e *proxyError) Unwrap() error { return e.cause }

// lookupTimeout is for the name of a redirect's target. Networks with a proxy
// often resolve no names of others.
const lookupTimeout = time.Second

// newProxiedTransport returns the transport for requests through a proxy. The
// operator chooses the proxy, so it may have any address.
func (c *Client) newProxiedTransport() *http.Transport {
	t := c.newTransport()
	t.Proxy = c.opts.Proxy
	t.DialContext = (&net.Dialer{Timeout: c.opts.Patience}).DialContext
	return t
}

// send sends a request directly, or through the proxy for its URL.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	if c.opts.Proxy == nil {
		return c.direct.RoundTrip(r)
	}
	proxy, err := c.opts.Proxy(r)
	switch {
	case err != nil: // the error quotes the setting, which may contain a password
		return nil, errInvalidProxy
	case proxy == nil:
		return c.direct.RoundTrip(r)
	}
	if err := c.checkProxied(r.Context(), r.URL); err != nil {
		return nil, err
	}
	resp, err := c.proxied.RoundTrip(r)
	if err != nil {
		return nil, &proxyError{proxy.Host, err}
	}
	return resp, nil
}

// checkProxied refuses a redirect into the server's own network, as far as that
// can be seen here: the proxy resolves the name, so only it can check the address
// of the connection. A name that does not resolve here is left to the proxy.
func (c *Client) checkProxied(ctx context.Context, to *url.URL) error {
	if strings.EqualFold(hostPort(to), hostPort(c.base)) || c.hubIsInner.Load() {
		return nil
	}
	refusal := fmt.Errorf("the hub redirects to %s, which is not in a public network", to.Host)
	host := strings.TrimSuffix(strings.ToLower(to.Hostname()), ".")
	if address, err := netip.ParseAddr(host); err == nil {
		if c.isInner(netip.AddrPortFrom(address, 0).String()) {
			return refusal
		}
		return nil
	}
	if !strings.Contains(host, ".") || isNumeric(host) || strings.HasSuffix(host, ".localhost") {
		return refusal // such a name belongs to this network, or spells an address in another way
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil //nolint:nilerr // the proxy resolves the name
	}
	for _, address := range addresses {
		if c.isInner(netip.AddrPortFrom(address, 0).String()) {
			return refusal
		}
	}
	return nil
}

// isNumeric reports whether the last label of a host is a number, as in 127.1
// and 0x7f.0.0.1.
func isNumeric(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && '0' <= last[0] && last[0] <= '9'
}
