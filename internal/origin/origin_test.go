package origin

import (
	"crypto/tls"
	"net/http/httptest"
	"net/netip"
	"testing"

	"dstack/internal/decide/route"
)

func TestReaderOf(t *testing.T) {
	at := func(scheme, host string, isLocal bool) route.Reader {
		return route.Reader{Origin: route.Origin{Scheme: scheme, Host: host}, IsLocal: isLocal}
	}
	for _, c := range []struct {
		name, remote, host string
		tls                bool
		header             string
		want               route.Reader
	}{
		{"loopback", "127.0.0.1:5000", "127.0.0.1:3000", false, "", at("http", "127.0.0.1:3000", true)},
		{"its name", "[::1]:5000", "localhost:3000", false, "", at("http", "localhost:3000", true)},
		{"another loopback address", "127.0.0.1:5000", "127.0.0.2:3000", false, "", at("http", "127.0.0.2:3000", true)},
		{"IPv4 over IPv6", "[::ffff:127.0.0.1]:5000", "127.0.0.1:3000", false, "", at("http", "127.0.0.1:3000", true)},
		{"from the network", "10.0.0.9:5000", "10.0.0.5:3000", false, "", at("http", "10.0.0.5:3000", false)},
		{"from the network with a Host of this machine", "10.0.0.9:5000", "127.0.0.1:3000", false, "", at("http", "127.0.0.1:3000", false)},
		{"over loopback with another Host", "127.0.0.1:5000", "dstack.example.com", false, "", at("http", "dstack.example.com", false)},
		{"through a proxy that sets the Host", "127.0.0.1:5000", "127.0.0.1:3000", false, "X-Forwarded-For", at("http", "127.0.0.1:3000", false)},
		{"TLS", "10.0.0.9:5000", "dstack.example.com", true, "", at("https", "dstack.example.com", false)},
		{"no Host", "127.0.0.1:5000", "", false, "", route.Reader{}},
		{"an invalid Host", "127.0.0.1:5000", "a\"b", false, "", route.Reader{}},
	} {
		r := httptest.NewRequest("GET", "http://x/", nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if c.header != "" {
			r.Header.Set(c.header, "203.0.113.9")
		}
		if got := ReaderOf(r, route.Proxies{}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestClientOf_BehindProxy(t *testing.T) {
	proxies := route.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for remote, want := range map[string]string{
		"127.0.0.1:5000":          "203.0.113.9 https://dstack.example.com",
		"[::ffff:127.0.0.1]:5000": "203.0.113.9 https://dstack.example.com",
		"10.0.0.9:5000":           "10.0.0.9 http://127.0.0.1:3000",
		"@":                       "unknown http://127.0.0.1:3000", // of a Unix socket
	} {
		r := httptest.NewRequest("GET", "http://x/", nil)
		r.RemoteAddr, r.Host = remote, "127.0.0.1:3000"
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Host", "dstack.example.com")
		got, reader := ClientOf(r, proxies), ReaderOf(r, proxies)
		if text := got.AddressText() + " " + got.Origin.String(); text != want {
			t.Errorf("%s: %s, want %s", remote, text, want)
		}
		if reader.Origin != got.Origin || reader.IsLocal {
			t.Errorf("%s: URLs are for %+v", remote, reader)
		}
	}
}
