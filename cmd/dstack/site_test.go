package main

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/server"
)

func TestSite(t *testing.T) {
	for _, c := range []struct {
		url, domain, host string
		want              route.Origin
	}{
		{"https://DSTACK.example.com/", "", "0.0.0.0", route.Origin{Scheme: "https", Host: "dstack.example.com"}},
		{"http://10.0.0.5:3000", "", "", route.Origin{Scheme: "http", Host: "10.0.0.5:3000"}},
		{"", "apps.example.com", "0.0.0.0", route.Origin{Scheme: "http", Host: "127.0.0.1:3000"}},
		{"", "", "127.0.0.1", route.Origin{Scheme: "http", Host: "127.0.0.1:3000"}},
		{"", "", "::1", route.Origin{Scheme: "http", Host: "[::1]:3000"}},
	} {
		o := serverOptions{publicURL: c.url, domain: c.domain, host: c.host, port: 3000}
		if err := o.checkAddresses(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if got := o.site(); got.Server != c.want || got.Domain != c.domain || got.Main != "main" {
			t.Errorf("%+v: got %+v", c, got)
		}
	}
	for _, bad := range []serverOptions{
		{publicURL: "dstack.example.com"}, {publicURL: "ftp://a"}, {publicURL: "https://"}, {publicURL: "https://a/b"},
		{publicURL: "https://u:p@a"}, {publicURL: "https://a?b"}, {publicURL: "https://a b"}, {publicURL: "::"},
		{domain: "https://apps.example.com"}, {domain: "apps.example.com:80"}, {domain: "a b"},
	} {
		if err := bad.checkAddresses(); err == nil {
			t.Errorf("%q, %q: accepted", bad.publicURL, bad.domain)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	listed := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		url        string
		configured []netip.Prefix
		want       string
	}{
		{"", nil, "[]"},
		{"http://dstack.example.com", nil, "[]"},
		{"HTTPS://dstack.example.com", nil, "[127.0.0.0/8 ::1/128]"},
		{"https://dstack.example.com", []netip.Prefix{}, "[]"},
		{"https://dstack.example.com", listed, "[10.0.0.0/8]"},
		{"", listed, "[10.0.0.0/8]"},
	} {
		o := serverOptions{publicURL: c.url}
		if got := fmt.Sprint(o.trustedProxies(server.Config{TrustedProxies: c.configured})); got != c.want {
			t.Errorf("at %q with %v: %s, want %s", c.url, c.configured, got, c.want)
		}
	}
}

func TestWarnOfUntrustedProxy(t *testing.T) {
	for _, c := range []struct {
		name, peer, host, header string
		warns                    bool
	}{
		{"a proxy that is not trusted", "10.0.0.9:1", "dstack.example.com", "X-Forwarded-For", true},
		{"a trusted one", "10.0.0.5:1", "dstack.example.com", "X-Forwarded-For", false},
		{"a client", "10.0.0.9:1", "dstack.example.com", "X-Other", false},
		{"another host", "10.0.0.9:1", "10.0.0.1:3000", "X-Forwarded-For", false},
	} {
		var log strings.Builder
		d := &daemon{log: slog.New(slog.NewTextHandler(&log, nil)), publicHost: "dstack.example.com",
			proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}}
		for range 2 {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Host = c.peer, c.host
			r.Header.Set(c.header, "203.0.113.9")
			d.warnOfUntrustedProxy(r)
		}
		if got := strings.Count(log.String(), "trusted_proxies in config.yml"); got != 1 && c.warns || got != 0 && !c.warns {
			t.Errorf("%s: %q", c.name, log.String())
		}
	}
}
