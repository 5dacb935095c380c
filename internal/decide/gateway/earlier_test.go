package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestKeepEarlier(t *testing.T) {
	internal := &spec.Certificate{Type: spec.CertificateInternal}
	byDNS := &spec.Certificate{Type: spec.CertificateLetsEncrypt, DNS: &spec.DNSProvider{Provider: "rfc2136", Settings: map[string]string{"key": "secret"}}}
	had := func(domain string, certificate *spec.Certificate, earlier ...dstack.EarlierDomain) dstack.Gateway {
		return dstack.Gateway{Domain: domain, Configuration: spec.Gateway{Certificate: certificate}, Earlier: earlier}
	}
	until := func(domain string, certificate *spec.Certificate, minutes int) dstack.EarlierDomain {
		return dstack.EarlierDomain{Domain: domain, Certificate: certificate, Until: now.Add(time.Duration(minutes) * time.Minute)}
	}
	for name, c := range map[string]struct {
		before      dstack.Gateway
		domain      string
		certificate *spec.Certificate
		want        string
	}{
		"a new gateway":                           {dstack.Gateway{}, "a", internal, ""},
		"its first domain":                        {had("", internal), "a", internal, ""},
		"nothing changes":                         {had("a", internal), "a", internal, ""},
		"another domain":                          {had("a", internal), "b", internal, "a internal 60"},
		"no domain":                               {had("a", internal), "", internal, "a internal 60"},
		"another domain, with plain HTTP":         {had("a", nil), "b", internal, "a plain 60"},
		"another certificate":                     {had("a", internal), "a", byDNS, ""},
		"no certificate any more":                 {had("a", internal), "a", nil, "a internal 60"},
		"its first certificate":                   {had("a", nil), "a", internal, ""},
		"another domain and no certificate":       {had("a", internal), "b", nil, "a internal 60"},
		"settings for DNS records are left out":   {had("a", byDNS), "b", internal, "a lets-encrypt by rfc2136 60"},
		"another domain again":                    {had("b", internal, until("a", internal, 30)), "c", internal, "b internal 60, a internal 30"},
		"the domain before":                       {had("b", internal, until("a", internal, 30)), "a", internal, "b internal 60"},
		"the domain before, without certificate":  {had("b", internal, until("a", internal, 30)), "a", nil, "b internal 60, a internal 30"},
		"a certificate again":                     {had("a", nil, until("a", internal, 30)), "a", internal, ""},
		"another domain after the certificate":    {had("a", nil, until("a", internal, 30)), "b", internal, "a plain 60, a internal 30"},
		"the time of an older one is over":        {had("b", internal, until("a", internal, 0)), "c", internal, "b internal 60"},
		"a second time the same":                  {had("a", internal, until("b", internal, 50), until("a", internal, 10)), "b", internal, "a internal 60"},
		"nothing changes, and the time goes on":   {had("b", internal, until("a", internal, 30)), "b", internal, "a internal 30"},
		"nothing changes, and the time has ended": {had("b", internal, until("a", internal, -1)), "b", internal, ""},
	} {
		var got []string
		for _, e := range KeepEarlier(c.before, c.domain, c.certificate, now) {
			source := "plain"
			if e.Certificate != nil {
				source = e.Certificate.Type
				if e.Certificate.DNS != nil {
					source += " by " + e.Certificate.DNS.Provider + strings.Repeat(" with settings", len(e.Certificate.DNS.Settings))
				}
			}
			got = append(got, fmt.Sprintf("%s %s %.0f", e.Domain, source, e.Until.Sub(now).Minutes()))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %q, want %q", name, text, c.want)
		}
	}
}

func TestKeepEarlier_KeepsTheNewest(t *testing.T) {
	g := dstack.Gateway{Domain: "d0", Configuration: spec.Gateway{Certificate: &spec.Certificate{Type: spec.CertificateInternal}}}
	for i := range 2 * maxEarlier {
		next := fmt.Sprint("d", i+1)
		g.Earlier = KeepEarlier(g, next, g.Configuration.Certificate, now)
		g.Domain = next
	}
	if len(g.Earlier) != maxEarlier || g.Earlier[0].Domain != "d19" {
		t.Errorf("got %+v", g.Earlier)
	}
}
