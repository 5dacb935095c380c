package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/spec"
)

func TestParseConfig_Network(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		all := []netip.Prefix{}
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	for text, want := range map[string][]netip.Prefix{
		"":                       nil,
		"trusted_proxies: []":    prefixes(),
		"trusted_proxies: [::1]": prefixes("::1/128"),
		"trusted_proxies: [10.0.0.5, 10.1.0.0/16, '2001:db8::/32', '::ffff:10.0.0.6']": prefixes(
			"10.0.0.5/32", "10.1.0.0/16", "2001:db8::/32", "10.0.0.6/32"),
	} {
		got, err := parseConfig("c.yml", []byte("projects: []\n"+text), testFormat)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.TrustedProxies, want) || (got.TrustedProxies == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", text, got.TrustedProxies, want)
		}
	}
	for text, want := range map[string]time.Duration{"0": 0, "90": 90 * time.Second, "90s": 90 * time.Second, "1h": time.Hour} {
		got, err := parseConfig("c.yml", []byte("projects: []\ndrain_timeout: "+text), testFormat)
		if err != nil {
			t.Fatal(err)
		}
		if got.DrainTimeout == nil || *got.DrainTimeout != want {
			t.Errorf("%s: %v, want %v", text, got.DrainTimeout, want)
		}
	}
}

func TestParseConfig_NetworkProblems(t *testing.T) {
	for text, wants := range map[string][]string{
		"trusted_proxies: 10.0.0.1": {"`trusted_proxies` must be a list", "write a list: [10.0.0.1]"},
		"trusted_proxies:\n- 10.0.0.1\n- proxy.example.com\n- 10.0.0.1/8\n- 10.0.0.0/33\n- fe80::1%eth0\n- {a: b}": {
			"c.yml:4", "`proxy.example.com` is neither an address nor a network", "c.yml:5",
			"write the network 10.0.0.0/8, or the address 10.0.0.1", "c.yml:6", "c.yml:7", "c.yml:8"},
		"trusted_proxies: ['::ffff:10.0.0.0/104']": {"write it as an IPv4 network"},
		"drain_timeout: soon":                      {"`soon` is not a duration", "from 0s to 1h"},
		"drain_timeout: -5s":                       {"is not a duration"},
		"drain_timeout: [5s]":                      {"is not a duration"},
		"drain_timeout: 2h":                        {"`2h` is longer than 1h"},
		"trusted_proxy: []":                        {"unknown field `trusted_proxy`", "trusted_proxies"},
	} {
		_, err := parseConfig("c.yml", []byte("projects: []\n"+text), testFormat)
		if err == nil {
			t.Errorf("%s is accepted", text)
			continue
		}
		var all strings.Builder
		problems, _ := errors.AsType[spec.Problems](err)
		for _, p := range problems {
			fmt.Fprintf(&all, "c.yml:%d %s: %s\n", p.Line, p.Message, p.Hint)
		}
		for _, want := range wants {
			if !strings.Contains(all.String(), want) {
				t.Errorf("%s: no %q in\n%s", text, want, all.String())
			}
		}
	}
}
