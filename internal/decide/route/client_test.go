package route_test

import (
	"net/netip"
	"strings"
	"testing"

	"dstack/internal/decide/route"
)

// proxies trust this machine and 10.0.0.0/8, and are at https://dstack.example.com.
var proxies = route.Proxies{
	Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.0.0.0/8")},
	Site:    route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}, Main: "main"},
}

// headers parses lines of `Name: value`.
func headers(lines ...string) map[string][]string {
	h := map[string][]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h[name] = append(h[name], value)
	}
	return h
}

func TestClientOf_Address(t *testing.T) {
	for _, c := range []struct {
		name, peer, forwardedFor string // what the next one is told
		header                   []string
	}{
		{"a stranger", "203.0.113.9", "203.0.113.9", nil},
		{"a stranger that claims to be another", "203.0.113.9", "203.0.113.9",
			[]string{"X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Forwarded-Proto: https"}},
		{"an unknown peer", "", "unknown", []string{"X-Forwarded-For: 10.0.0.1"}},
		{"this machine itself", "127.0.0.1", "127.0.0.1", nil},
		{"one proxy", "127.0.0.1", "203.0.113.9, 127.0.0.1", []string{"X-Forwarded-For: 203.0.113.9"}},
		{"one proxy over IPv6", "::1", "2001:db8::9, ::1", []string{"X-Forwarded-For: 2001:db8::9"}},
		{"a peer of IPv4 over IPv6", "::ffff:127.0.0.1", "203.0.113.9, 127.0.0.1", []string{"X-Forwarded-For: ::ffff:203.0.113.9"}},
		{"a peer with a zone", "fe80::1%eth0", "fe80::1", nil},
		{"two proxies", "127.0.0.1", "203.0.113.9, 10.0.0.7, 127.0.0.1", []string{"X-Forwarded-For: 203.0.113.9, 10.0.0.7"}},
		{"what the client itself claims is dropped", "127.0.0.1", "203.0.113.9, 10.0.0.7, 127.0.0.1",
			[]string{"X-Forwarded-For: 10.6.6.6, 6.6.6.6, 203.0.113.9, 10.0.0.7"}},
		{"clients within the trusted network", "127.0.0.1", "10.0.0.8, 10.0.0.7, 127.0.0.1", []string{"X-Forwarded-For: 10.0.0.8,10.0.0.7"}},
		{"several headers", "127.0.0.1", "203.0.113.9, 10.0.0.7, 127.0.0.1",
			[]string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.0.0.7"}},
		{"empty items", "127.0.0.1", "203.0.113.9, 127.0.0.1", []string{"X-Forwarded-For: , ,203.0.113.9 ,\t,"}},
		{"an address that the proxy does not know", "127.0.0.1", "127.0.0.1", []string{"X-Forwarded-For: 6.6.6.6, unknown"}},
		{"an address that the second proxy does not know", "127.0.0.1", "10.0.0.7, 127.0.0.1",
			[]string{"X-Forwarded-For: 6.6.6.6, _hidden, 10.0.0.7"}},
		{"no address", "127.0.0.1", "127.0.0.1", []string{"X-Forwarded-For: <script>"}},
		{"an address and a port", "127.0.0.1", "203.0.113.9, 127.0.0.1", []string{"X-Forwarded-For: 203.0.113.9:4711"}},
		{"IPv6 and a port", "127.0.0.1", "2001:db8::9, 127.0.0.1", []string{"X-Forwarded-For: [2001:db8::9]:4711"}},
		{"IPv6 in brackets", "127.0.0.1", "2001:db8::9, 127.0.0.1", []string{"X-Forwarded-For: [2001:db8::9]"}},
		{"IPv6 in half a bracket", "127.0.0.1", "127.0.0.1", []string{"X-Forwarded-For: [2001:db8::9"}},
		{"IPv4 in brackets", "127.0.0.1", "127.0.0.1", []string{"X-Forwarded-For: [203.0.113.9]"}},
		{"too large a number", "127.0.0.1", "127.0.0.1", []string{"X-Forwarded-For: 203.0.113.999"}},
		{"a thousand items", "127.0.0.1", "203.0.113.9, 127.0.0.1",
			[]string{"X-Forwarded-For: " + strings.Repeat("6.6.6.6, ", 1000) + "203.0.113.9"}},
		{"a thousand proxies", "127.0.0.1", strings.Repeat("10.0.0.7, ", 32) + "127.0.0.1",
			[]string{"X-Forwarded-For: " + strings.Repeat("10.0.0.7, ", 999) + "10.0.0.7"}},

		{"RFC 7239", "127.0.0.1", "203.0.113.9, 127.0.0.1", []string{"Forwarded: for=203.0.113.9"}},
		{"RFC 7239 with all its spellings", "127.0.0.1", "2001:db8::9, 10.0.0.7, 127.0.0.1",
			[]string{`Forwarded: for=6.6.6.6, FOR="[2001:db8::9]:_port";by=_x ; Proto=https,, For="10.0.0.7:8000";ext="a,b;for=7.7.7.7"`}},
		{"RFC 7239 in several headers", "127.0.0.1", "203.0.113.9, 10.0.0.7, 127.0.0.1",
			[]string{"Forwarded: for=6.6.6.6", "Forwarded: for=203.0.113.9", "Forwarded: for=10.0.0.7"}},
		{"RFC 7239 with escapes", "127.0.0.1", "203.0.113.9, 127.0.0.1", []string{`Forwarded: for="203.0.\113.9"`}},
		{"RFC 7239 without quotes", "127.0.0.1", "2001:db8::9, 127.0.0.1", []string{"Forwarded: for=[2001:db8::9]:4711"}},
		{"RFC 7239, unknown", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for=6.6.6.6, for=unknown"}},
		{"RFC 7239, hidden", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for=6.6.6.6, for=_gazonk"}},
		{"RFC 7239 without an address", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for=6.6.6.6, proto=https"}},
		{"a quote that swallows the proxy's part", "127.0.0.1", "127.0.0.1", []string{`Forwarded: for="6.6.6.6, for=203.0.113.9`}},
		{"a pair without a value", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for=, for=203.0.113.9"}},
		{"words without an equals sign", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for 6.6.6.6, for=203.0.113.9"}},
		{"both, as most proxies pass Forwarded unread", "127.0.0.1", "203.0.113.9, 127.0.0.1",
			[]string{"Forwarded: for=6.6.6.6", "X-Forwarded-For: 203.0.113.9"}},
		{"a proxy that sets only the scheme", "127.0.0.1", "127.0.0.1", []string{"Forwarded: for=6.6.6.6", "X-Forwarded-Proto: https"}},
	} {
		peer, _ := netip.ParseAddr(c.peer)
		got := proxies.ClientOf(route.Request{Peer: peer, Host: "dstack.example.com", Header: headers(c.header...)})
		if got.ForwardedFor() != c.forwardedFor {
			t.Errorf("%s: the next one is told %q, want %q", c.name, got.ForwardedFor(), c.forwardedFor)
		}
		if first, _, _ := strings.Cut(c.forwardedFor, ", "); got.AddressText() != first {
			t.Errorf("%s: the client is %s, want %s", c.name, got.AddressText(), first)
		}
	}
}

func TestClientOf_Origin(t *testing.T) {
	for _, c := range []struct {
		name, peer, host string
		tls              bool
		header           []string
		want             string
	}{
		{"a stranger", "203.0.113.9", "a.test", false, nil, "http://a.test 80"},
		{"a stranger with TLS", "203.0.113.9", "a.test:8443", true, nil, "https://a.test:8443 8443"},
		{"a stranger with claims", "203.0.113.9", "a.test", false,
			[]string{"X-Forwarded-Proto: https", "X-Forwarded-Host: b.test", "X-Forwarded-Port: 8443", "Forwarded: host=b.test;proto=https"},
			"http://a.test 80"},
		{"a stranger at the public URL", "203.0.113.9", "dstack.example.com", false, nil, "http://dstack.example.com 80"},
		{"a proxy that says nothing, at the public URL", "127.0.0.1", "dstack.example.com", false, nil, "https://dstack.example.com 443"},
		{"a proxy that says nothing, at a name below it", "127.0.0.1", "web.dstack.example.com", false, nil, "https://web.dstack.example.com 443"},
		{"this machine itself", "127.0.0.1", "127.0.0.1:3000", false, nil, "http://127.0.0.1:3000 3000"},
		{"the scheme", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: https"}, "https://a.test 443"},
		{"the scheme of a WebSocket", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: WSS"}, "https://a.test 443"},
		{"http at the public URL", "127.0.0.1", "dstack.example.com", false, []string{"X-Forwarded-Proto: http"}, "http://dstack.example.com 80"},
		{"another scheme", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: javascript"}, "http://a.test 80"},
		{"the scheme of each hop", "127.0.0.1", "a.test", false,
			[]string{"X-Forwarded-For: 203.0.113.9, 10.0.0.7", "X-Forwarded-Proto: https, http"}, "https://a.test 443"},
		{"the scheme that the client itself claims", "127.0.0.1", "a.test", false,
			[]string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https, http"}, "http://a.test 80"},
		{"the host", "127.0.0.1", "10.0.0.5:3000", false, []string{"X-Forwarded-Host: a.test", "X-Forwarded-Proto: https"}, "https://a.test 443"},
		{"the host and its port", "127.0.0.1", "10.0.0.5:3000", false,
			[]string{"X-Forwarded-Host: a.test:8443", "X-Forwarded-Proto: https"}, "https://a.test:8443 8443"},
		{"the port alone", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"},
			"https://a.test:8443 8443"},
		// Neither Caddy nor nginx replaces X-Forwarded-Port, unless it is configured to.
		{"a port that the client itself claims", "127.0.0.1", "a.test", false,
			[]string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: a.test", "X-Forwarded-Proto: https", "X-Forwarded-Port: 6666"},
			"https://a.test 443"},
		{"the default port", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 443"}, "https://a.test 443"},
		{"no port", "127.0.0.1", "a.test", false, []string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 99999"}, "https://a.test 443"},
		{"no host", "127.0.0.1", "a.test", false, []string{`X-Forwarded-Host: b.test/"><script>`}, "http://a.test 80"},
		{"RFC 7239", "127.0.0.1", "10.0.0.5", false, []string{`Forwarded: for=203.0.113.9;host="a.test:8443";proto=https`},
			"https://a.test:8443 8443"},
		{"RFC 7239 of each hop", "127.0.0.1", "10.0.0.5", false,
			[]string{`Forwarded: for=1.1.1.1;host=evil.test, for=203.0.113.9;host=a.test;proto=https, for=10.0.0.7;host=inner;proto=http`},
			"https://a.test 443"},
	} {
		got := proxies.ClientOf(route.Request{Peer: netip.MustParseAddr(c.peer), IsTLS: c.tls, Host: c.host, Header: headers(c.header...)})
		if text := got.Origin.String() + " " + got.Port(); text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

func TestClientOf_NoTrustedProxies(t *testing.T) {
	none := route.Proxies{Site: proxies.Site}
	got := none.ClientOf(route.Request{Peer: netip.MustParseAddr("127.0.0.1"), Host: "dstack.example.com",
		Header: headers("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")})
	if got.ForwardedFor() != "127.0.0.1" || got.Origin.Scheme != "http" {
		t.Errorf("%+v", got)
	}
}

func TestClient_Forwarded(t *testing.T) {
	got := proxies.ClientOf(route.Request{Peer: netip.MustParseAddr("::1"), Host: "a.test:8443",
		Header: headers("X-Forwarded-For: 203.0.113.9, 10.0.0.7", "X-Forwarded-Proto: https")})
	if want := `for=203.0.113.9;host="a.test:8443";proto=https, for=10.0.0.7, for="[::1]"`; got.Forwarded() != want {
		t.Errorf("%s, want %s", got.Forwarded(), want)
	}
}

// Whatever a client sends, it cannot change what a trusted proxy appends, and
// nothing that it sends counts without one.
func FuzzClientOf(f *testing.F) {
	for _, seed := range []string{"", "6.6.6.6", `for="`, `for="[::1]:1"`, "for=a\\", "unknown, _x", "[::1", ";,;=", `for=1.1.1.1;host="a`} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, chain, forwarded, other string) {
		const real = "203.0.113.9"
		sent := map[string][]string{"X-Forwarded-For": {chain}, "Forwarded": {forwarded}, "X-Forwarded-Host": {other},
			"X-Forwarded-Proto": {other}, "X-Forwarded-Port": {other}}
		stranger := proxies.ClientOf(route.Request{Peer: netip.MustParseAddr(real), Host: "a.test", Header: sent})
		if stranger.ForwardedFor() != real || stranger.Origin.String() != "http://a.test" {
			t.Errorf("a stranger is believed: %+v", stranger)
		}

		sent["X-Forwarded-For"] = []string{chain + ", " + real}
		behind := proxies.ClientOf(route.Request{Peer: netip.MustParseAddr("127.0.0.1"), Host: "a.test", Header: sent})
		if behind.ForwardedFor() != real+", 127.0.0.1" {
			t.Errorf("X-Forwarded-For: %q makes %s of the client", chain, behind.ForwardedFor())
		}
		if !route.IsValidHost(behind.Origin.Host) || behind.Origin.Scheme != "http" && behind.Origin.Scheme != "https" {
			t.Errorf("the origin is %q", behind.Origin)
		}

		for _, lines := range [][]string{{forwarded + ", for=" + real}, {forwarded, "for=" + real}} {
			by := proxies.ClientOf(route.Request{Peer: netip.MustParseAddr("127.0.0.1"), Host: "a.test",
				Header: map[string][]string{"Forwarded": lines}})
			if text := by.AddressText(); text != real && text != "127.0.0.1" {
				t.Errorf("Forwarded: %q makes %s of the client", forwarded, text)
			}
		}
	})
}
