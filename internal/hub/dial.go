package hub

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const maxHeader = 64 << 10

// newDirectTransport returns the transport for requests without a proxy. It
// checks the address of each connection.
func (c *Client) newDirectTransport() *http.Transport {
	t := c.newTransport()
	t.DialContext = c.dialHub
	return t
}

func (c *Client) newTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:        c.opts.TLS.Clone(),
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // limits count the bytes as sent
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    c.opts.Patience,
	}
}

// dialHub connects to the hub or to the target of its redirects. The operator
// chooses the hub, so it may have any address. A public hub must not redirect
// into the server's own network; the check uses the address of the connection,
// so a DNS change cannot bypass it.
func (c *Client) dialHub(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: c.opts.Patience}
	if strings.EqualFold(address, hostPort(c.base)) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil && c.isInner(conn.RemoteAddr().String()) {
			c.hubIsInner.Store(true)
		}
		return conn, err
	}
	if !c.hubIsInner.Load() {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if c.isInner(address) {
				return fmt.Errorf("the hub redirects to %s, which is not in a public network", address)
			}
			return nil
		}
	}
	return dialer.DialContext(ctx, network, address)
}

// hostPort returns the host and port of a URL, with the default port of its
// scheme.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// isSameHost reports whether two URLs have the same scheme, host and port.
func isSameHost(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

// specialNetworks are networks that are not public, in addition to those that
// netip recognizes.
var specialNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT, and the metadata service of some clouds
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // IPv4 addresses embedded in IPv6
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
}

// isInnerAddress reports whether a host:port address is outside of the public
// networks. An invalid address counts as inner.
func isInnerAddress(address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return true
	}
	ip := at.Addr().Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return true
	}
	for _, p := range specialNetworks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
