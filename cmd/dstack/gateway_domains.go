package main

import (
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/certificate"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// newCertificateDomains returns the domains of a gateway, and the names in them that have something to serve, as the keeper
// of certificates needs them.
func newCertificateDomains(s api.GatewaySettings, names []string) []certificate.Domain {
	if s.Domain == "" {
		return nil
	}
	domains := []certificate.Domain{{Gateway: s.Gateway, Name: s.Domain, Names: namesIn(s.Domain, names), Certificate: newCertificateSource(s.Certificate)}}
	for _, e := range s.Earlier {
		domains = append(domains, certificate.Domain{Gateway: s.Gateway, Name: e.Domain, Names: namesIn(e.Domain, names),
			Certificate: newCertificateSource(e.Certificate), IsEarlier: true})
	}
	return domains
}

// namesIn returns the names that are directly below a domain.
func namesIn(domain string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, parent, _ := strings.Cut(name, ".")
		return parent != domain
	})
}

// needsTLS reports whether a gateway, or a domain that it had, has a certificate.
func needsTLS(s api.GatewaySettings) bool {
	return s.Certificate != nil || slices.ContainsFunc(s.Earlier, func(e api.EarlierDomain) bool { return e.Certificate != nil })
}

// hasTLS is needsTLS for a gateway of the server itself.
func hasTLS(g dstack.Gateway) bool {
	return g.Configuration.Certificate != nil || slices.ContainsFunc(g.Earlier, func(e dstack.EarlierDomain) bool { return e.Certificate != nil })
}

func newCertificateSource(c *api.GatewayCertificate) *spec.Certificate {
	if c == nil {
		return nil
	}
	source := &spec.Certificate{Type: c.Type, Email: spec.Text(c.Email), Cert: c.Cert, Key: c.Key}
	if c.DNS != nil {
		source.DNS = &spec.DNSProvider{Provider: c.DNS.Provider, Settings: c.DNS.Settings}
	}
	return source
}
