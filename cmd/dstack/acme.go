package main

import (
	"context"
	"os"

	"dstack/internal/api"
	"dstack/internal/certificate"
	"dstack/internal/server"
)

// readACME returns the ACME server of the installation, from the environment.
func readACME() (certificate.ACME, error) { return certificate.ACMEFromEnvironment(os.Getenv) }

// addCertificateLinks adds what gateway processes on other machines need for their certificates.
func (d *daemon) addCertificateLinks(o *server.LinkOptions) error {
	acme, err := readACME()
	if err != nil {
		return err
	}
	storage := d.store.Certificates()
	o.ACME, o.Certificates = newACMESettings(acme), storage
	o.PrepareAuthority = func(ctx context.Context, domain string) error {
		return certificate.PrepareAuthority(ctx, storage, domain)
	}
	o.Authority = func(ctx context.Context) ([]byte, error) { return certificate.Root(ctx, storage) }
	return nil
}

// newACMESettings returns the ACME server as gateway processes get it from the server.
func newACMESettings(a certificate.ACME) api.ACME {
	return api.ACME{Server: a.Server, KeyID: a.KeyID, HMACKey: a.HMACKey, Email: a.Email, Roots: a.Roots, Profile: a.Profile,
		HTTPPort: a.HTTPPort, HTTPSPort: a.HTTPSPort, Resolvers: a.Resolvers}
}

// parseACMESettings is the opposite of newACMESettings.
func parseACMESettings(s api.ACME) certificate.ACME {
	return certificate.ACME{Server: s.Server, KeyID: s.KeyID, HMACKey: s.HMACKey, Email: s.Email, Roots: s.Roots, Profile: s.Profile,
		HTTPPort: s.HTTPPort, HTTPSPort: s.HTTPSPort, Resolvers: s.Resolvers}
}
