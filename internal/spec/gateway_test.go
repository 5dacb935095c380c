package spec_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dstack/internal/spec"
)

func mustParseGateway(t *testing.T, text string) *spec.Gateway {
	t.Helper()
	c, err := spec.ParseConfiguration("gateway.dstack.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c.(*spec.Gateway)
}

func TestGateway_DomainName(t *testing.T) {
	for text, want := range map[string]string{"example.com": "example.com", "*.example.com": "example.com", "Apps.Example.COM.": "apps.example.com",
		".example.com": "example.com", "xn--mnchen-3ya.example": "xn--mnchen-3ya.example", "apps.localhost": "apps.localhost", "intranet": "intranet"} {
		if err := spec.CheckDomain(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := (&spec.Gateway{Domain: spec.Text(text)}).DomainName(); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"", "*", "*.", "..", "a..b", "a_b.example", "192.0.2.7", "*.10", "[::1]", "a b", "example.com/", "http://example.com", "example.com:443",
		"münchen.example", "*.*.example.com", "*example.com", "example.com.*", strings.Repeat("a.", 120) + "com", "a" + strings.Repeat("b", 63) + ".com"} {
		if spec.CheckDomain(text) == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

// Own machines need no region, and their spellings mean the same.
func TestGateway_Backends(t *testing.T) {
	for text, want := range map[string]string{"local": spec.BackendLocal, "ssh": spec.BackendSSH, "remote": spec.BackendSSH, "external": spec.BackendExternal} {
		g := mustParseGateway(t, "type: gateway\nbackend: "+text+"\ndomain: example.com\n")
		if g.Backend != want || !g.IsOnOwnMachine() || len(g.Unsupported()) > 0 || g.Certificate.Type != spec.CertificateLetsEncrypt {
			t.Errorf("%s: %+v", text, g)
		}
	}
	if g := mustParseGateway(t, "type: gateway\nbackend: ssh\nreplicas: 2\nhosts: [a, fleet/b]\ntrusted_proxies: []\n"); g.ReplicaCount() != 2 ||
		!slices.Equal(g.Hosts, []string{"a", "fleet/b"}) || g.ProxyNetworks() == nil {
		t.Errorf("got %+v", g)
	}
	if g := mustParseGateway(t, "type: gateway\nbackend: local\ntrusted_proxies: [10.0.0.5, 192.168.0.0/16, \"::1\"]\n"); fmt.Sprint(g.ProxyNetworks()) != "[10.0.0.5/32 192.168.0.0/16 ::1/128]" {
		t.Errorf("got %v", g.ProxyNetworks())
	}
}

// The stored form reads back to the same gateway.
func TestGateway_RoundTrip(t *testing.T) {
	for _, text := range []string{
		"domain: '*.example.com'\ndefault: true\nname: front-door",
		"certificate: null",
		"certificate: {type: internal}",
		"certificate: {type: files, cert: /etc/a.crt, key: /etc/a.key}\ntrusted_proxies: []",
		"certificate: {type: lets-encrypt, email: a@example.com, dns: {provider: rfc2136, server: '192.0.2.53:53', key_name: k, key: '${{ secrets.TSIG }}', propagation_timeout: 5m}}",
		"certificate: {type: lets-encrypt, dns: {provider: exec, command: /usr/local/bin/set-record}}",
	} {
		g := mustParseGateway(t, "type: gateway\nbackend: local\n"+text)
		stored, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		var again spec.Gateway
		if err := json.Unmarshal(stored, &again); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		twice, err := json.Marshal(again)
		if err != nil || string(twice) != string(stored) {
			t.Errorf("%s: %s, then %s (%v)", text, stored, twice, err)
		}
		if differences, err := spec.DiffGateways(*g, again); err != nil || len(differences) > 0 {
			t.Errorf("%s: differs in %+v (%v)", text, differences, err)
		}
	}
}

// Secrets are shown nowhere, references to them are, and a changed secret counts as a change.
func TestGateway_Secrets(t *testing.T) {
	of := func(token string) *spec.Gateway {
		return mustParseGateway(t, "type: gateway\nbackend: local\ncertificate: {type: lets-encrypt, dns: {provider: cloudflare, api_token: '"+token+"', zone_token: '${{ secrets.ZONE }}'}}\n")
	}
	plain, mixed := of("do-not-show"), of("a${{ secrets.TOKEN }}b")
	shown, err := json.Marshal(plain.WithoutSecrets())
	if err != nil || strings.Contains(string(shown), "do-not-show") || !strings.Contains(string(shown), "${{ secrets.ZONE }}") {
		t.Errorf("shown: %s (%v)", shown, err)
	}
	if plain.Certificate.DNS.Settings["api_token"] != "do-not-show" {
		t.Error("WithoutSecrets changed the gateway itself")
	}
	if got := mixed.SecretNames(); !slices.Equal(got, []string{"TOKEN", "ZONE"}) {
		t.Errorf("the secrets are %v", got)
	}
	resolved, missing := mixed.Certificate.ResolveSecrets(func(name string) (string, bool) { return "<" + name + ">", name == "TOKEN" })
	if resolved.DNS.Settings["api_token"] != "a<TOKEN>b" || !slices.Equal(missing, []string{"ZONE"}) || mixed.Certificate.DNS.Settings["api_token"] != "a${{ secrets.TOKEN }}b" {
		t.Errorf("resolved to %v, without %v", resolved.DNS.Settings, missing)
	}
	differences, err := spec.DiffGateways(*plain, *of("another"))
	if err != nil || fmt.Sprint(differences) != "[{certificate.dns.api_token (hidden) (hidden)}]" {
		t.Errorf("the difference is %v (%v)", differences, err)
	}
}

func TestGateway_SecretsInURLs(t *testing.T) {
	for url, want := range map[string]string{
		"https://dns.example.com/records":                            "https://dns.example.com/records",
		"https://dns.example.com?key=do-not-show":                    "https://dns.example.com?(hidden)",
		"http://ann:do-not-show@dns.example.com:8080/a/b?c":          "http://(hidden)@dns.example.com:8080/a/b?(hidden)",
		"https://dns.example.com/r?key=${{ secrets.KEY }}":           "https://dns.example.com/r?key=${{ secrets.KEY }}",
		"https://dns.example.com/r?a=${{ secrets.K }}&b=do-not-show": "https://dns.example.com/r?(hidden)",
	} {
		g := mustParseGateway(t, "type: gateway\nbackend: local\ncertificate: {type: lets-encrypt, dns: {provider: webhook, url: '"+url+"'}}\n")
		if got := g.WithoutSecrets().Certificate.DNS.Settings["url"]; got != want {
			t.Errorf("%s is shown as %s", url, got)
		}
	}
}

func TestDiffGateways(t *testing.T) {
	from := mustParseGateway(t, "type: gateway\nname: front-door\nbackend: local\ndomain: '*.Example.com'\ncertificate: {type: internal}\n")
	same := mustParseGateway(t, "type: gateway\nname: side-door\nbackend: local\ndomain: example.com\ncertificate: {type: internal}\n")
	if differences, err := spec.DiffGateways(*from, *same); err != nil || len(differences) > 0 {
		t.Errorf("the spelling of the domain counts: %v (%v)", differences, err)
	}
	to := mustParseGateway(t, "type: gateway\nname: front-door\nbackend: external\ndomain: apps.example.com\ncertificate: null\ntrusted_proxies: [10.0.0.5]\n")
	differences, err := spec.DiffGateways(*from, *to)
	want := "[{backend local external} {certificate.type internal none} {domain example.com apps.example.com} {trusted_proxies  10.0.0.5}]"
	if got := fmt.Sprint(differences); err != nil || got != want {
		t.Errorf("got %s (%v)", got, err)
	}
}
