package main

import (
	"crypto/x509"
	"os"
	"slices"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// systemRootFiles are the files that Go reads the authorities of a Linux system from.
var systemRootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// trustAuthorities trusts the authorities of Mozilla where the system has none of its own, as in an image that has this
// program only. Elsewhere it does nothing: to read them is a tenth of the start of every command.
func trustAuthorities() {
	if os.Getenv("SSL_CERT_FILE") != "" || !slices.ContainsFunc(systemRootFiles, hasContent) {
		x509.SetFallbackRoots(readMozillaRoots())
	}
}

func hasContent(file string) bool {
	found, err := os.Stat(file)
	return err == nil && found.Size() > 0
}

func readMozillaRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		authority, err := x509.ParseCertificate(root.Certificate)
		if err != nil { // it is part of the program
			panic(err)
		}
		if root.Constraint == nil {
			pool.AddCert(authority)
			continue
		}
		pool.AddCertWithConstraint(authority, root.Constraint)
	}
	return pool
}
