package main

import (
	"dstack/internal/api"
	"dstack/internal/certificate"
	"dstack/internal/spec"
)

// newCertificateDomains returns the domain of a gateway, and the names in it that have something to serve, as the keeper
// of certificates needs them.
func newCertificateDomains(s api.GatewaySettings, names []string) []certificate.Domain {
	if s.Domain == "" {
		return nil
	}
	return []certificate.Domain{{Gateway: s.Gateway, Name: s.Domain, Names: names, Certificate: newCertificateSource(s.Certificate)}}
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
