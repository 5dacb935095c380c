package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// behindProxy are the options of a gateway behind a proxy with TLS on this machine.
var behindProxy = gateway.Options{
	Site:    route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}},
	Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")},
}

// A service behind a trusted proxy learns what its client did: the address, the
// scheme and the host. What the client itself claims does not get through.
func TestForward_TrustedProxy(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.Header) })
	r := startGatewayWith(t, behindProxy, publicRoute("open", up))
	for _, c := range []struct {
		name, host string
		header     []string
		want       map[string]string
	}{
		{"a proxy that says everything", "open.dstack.example.com",
			[]string{"X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.0.0.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "open.dstack.example.com",
				"X-Real-Ip", "6.6.6.6", "X-Forwarded-Server", "6.6.6.6", "X_Forwarded_For", "6.6.6.6", "Forwarded", "for=6.6.6.6"},
			map[string]string{"X-Forwarded-For": "203.0.113.9, 10.0.0.7, 127.0.0.1", "X-Real-Ip": "203.0.113.9",
				"X-Forwarded-Proto": "https", "X-Forwarded-Host": "open.dstack.example.com", "X-Forwarded-Port": "443",
				"Forwarded":          `for=203.0.113.9;host="open.dstack.example.com";proto=https, for=10.0.0.7, for=127.0.0.1`,
				"X-Forwarded-Server": "", "X_forwarded_for": ""}},
		{"a proxy that says nothing of the scheme", "open.dstack.example.com", []string{"X-Forwarded-For", "2001:db8::9"},
			map[string]string{"X-Forwarded-For": "2001:db8::9, 127.0.0.1", "X-Forwarded-Proto": "https",
				"Forwarded": `for="[2001:db8::9]";host="open.dstack.example.com";proto=https, for=127.0.0.1`}},
		{"a request of this machine", "open.localhost:3000", nil,
			map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "3000"}},
	} {
		got := r.get("http://"+c.host+"/", c.header...)
		var h http.Header
		if err := json.Unmarshal([]byte(got.body), &h); err != nil {
			t.Fatal(err, got.body)
		}
		for name, want := range c.want {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, h.Get(name), want)
			}
		}
	}
}

// A redirect to the host that the proxy received stays below the path of the
// service.
func TestForward_RedirectBehindProxy(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.Header.Get("X-Forwarded-Proto")+"://"+r.Header.Get("X-Forwarded-Host")+"/login")
		w.WriteHeader(http.StatusFound)
	})
	r := startGatewayWith(t, behindProxy, publicRoute("open", up))
	got := r.get("http://127.0.0.1:3000/proxy/services/main/open/", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https",
		"X-Forwarded-Host", "dstack.example.com")
	if want := "https://dstack.example.com/proxy/services/main/open/login"; got.Header.Get("Location") != want {
		t.Errorf("the client is sent to %s, want %s", got.Header.Get("Location"), want)
	}
}

func TestRateLimit_CallersBehindProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := withLimits(publicRoute("open"), byIP("/", 1, 0))
		ends.IsStopping = true // a request that passes the limits gets 503
		g, _ := startWithoutNetwork(t, behindProxy, ends)
		c := callers{t, g}
		const passes, not = 503, 429
		url := "http://open.localhost/"
		c.expectStatuses("one caller", "127.0.0.1:1", url, []int{passes, not}, "X-Forwarded-For", "203.0.113.9")
		c.expectStatuses("another caller", "127.0.0.1:1", url, []int{passes, not}, "X-Forwarded-For", "203.0.113.10")
		c.expectStatuses("a caller that claims to be another", "127.0.0.1:1", url, []int{not}, "X-Forwarded-For", "8.8.8.8, 203.0.113.9")
		c.expectStatuses("a stranger that claims to be another", "203.0.113.9:1", url, []int{not}, "X-Forwarded-For", "8.8.8.8")
	})
}

// At the domain of a gateway of a project, its own trusted proxies count, and the scheme is that of the gateway.
func TestForward_ProxiesOfGateways(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(r.Header) })
	r := startGatewayWith(t, gateway.Options{Proxies: behindProxy.Proxies}, publicRoute("open", up))
	r.plane.mu.Lock()
	r.plane.table.Version++
	r.plane.table.Gateways = []route.Gateway{
		{ID: "g1", Project: "main", Name: "own", Domain: "own.example", TrustedProxies: behindProxy.Proxies, IsPlain: true},
		{ID: "g2", Project: "main", Name: "none", Domain: "none.example", TrustedProxies: []netip.Prefix{}, IsPlain: true},
		{ID: "g3", Project: "main", Name: "tls", Domain: "tls.example", TrustedProxies: behindProxy.Proxies},
	}
	r.plane.mu.Unlock()
	r.plane.changes.Notify()
	waitUntil(t, "the gateways are known", func() bool { _, ok := r.gateway.FindGateway("open.own.example"); return ok })
	for _, c := range []struct{ host, scheme, address, got string }{
		{"open.own.example", "https", "203.0.113.9", "https"},
		{"open.own.example", "http", "203.0.113.9", "http"},
		{"open.none.example", "https", "127.0.0.1", "http"},
		{"open.tls.example", "http", "203.0.113.9", "https"}, // it has https alone
	} {
		var h http.Header
		got := r.get("http://"+c.host+"/", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", c.scheme)
		if err := json.Unmarshal([]byte(got.body), &h); err != nil {
			t.Fatal(err, got.body)
		}
		if h.Get("X-Real-Ip") != c.address || h.Get("X-Forwarded-Proto") != c.got {
			t.Errorf("%s by %s: the replica learns of %s by %s, not of %s by %s", c.host, c.scheme, h.Get("X-Real-Ip"), h.Get("X-Forwarded-Proto"), c.address, c.got)
		}
	}
}
