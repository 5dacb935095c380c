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

func (c *Client) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // the environment is not asked
		DialContext:            c.dialHub,
		TLSClientConfig:        c.opts.TLS.Clone(),
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // sizes are counted as they come
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    c.opts.Patience,
	}
}

// dialHub connects to the hub wherever it is, since the operator names it. To
// where it redirects, a public hub is not to lead into our own network: the
// address is looked at when it is connected to, so that no name can change
// its mind between.
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
				return fmt.Errorf("the hub redirects to %s, which is in no public network", address)
			}
			return nil
		}
	}
	return dialer.DialContext(ctx, network, address)
}

// hostPort is where a URL's host is dialled.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// isSameHost tells whether two URLs are of one scheme, host and port.
func isSameHost(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

// specialNetworks are the networks that are not public, beside those that netip knows.
var specialNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared by carriers and some clouds' metadata
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // IPv4 in IPv6, three ways
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
}

// isInnerAddress tells an address, with its port, of no public network. One that it
// cannot read is as well.
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
