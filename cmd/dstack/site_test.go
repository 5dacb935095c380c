package main

import (
	"testing"

	"dstack/internal/decide/route"
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
