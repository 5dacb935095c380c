package installationca

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"

	"dstack/internal/dstack"
)

// ClientConfig returns the configuration with which gateways and servers connect to a server of an
// installation, at whatever address. The connection fails unless the other side proves that the
// authority with the fingerprint named it a server; no other authority is trusted. An invalid
// fingerprint is an error of kind Invalid.
func ClientConfig(fingerprint string) (*tls.Config, error) {
	return clientConfig(fingerprint, time.Now)
}

func clientConfig(fingerprint string, now func() time.Time) (*tls.Config, error) {
	raw, err := hex.DecodeString(fingerprint)
	if err != nil || len(raw) != sha256.Size {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the fingerprint of the installation is malformed",
			Hint: "copy the token or command again, as a whole"}
	}
	pinned := hex.EncodeToString(raw) // in lower case
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, NextProtos: []string{"h2", "http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection does it, also for resumed sessions
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyServer(s.PeerCertificates, pinned, now()) },
	}, nil
}

// errForeign says that the other side is no server of the installation.
var errForeign = errors.New("it has no certificate of this installation")

// verifyServer checks that the first certificate is that of a server, and is signed by the authority with
// the fingerprint, which comes with it.
func verifyServer(chain []*x509.Certificate, fingerprint string, now time.Time) error {
	roots := x509.NewCertPool()
	isKnown := false
	for _, certificate := range chain {
		if certificate.IsCA && subtle.ConstantTimeCompare([]byte(fingerprintOf(certificate)), []byte(fingerprint)) == 1 {
			roots.AddCert(certificate)
			isKnown = true
		}
	}
	if !isKnown {
		return newForeignError(errForeign)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: ServerName, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return newForeignError(err)
	}
	return nil
}

func newForeignError(cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause,
		Message: "the other side is not a server of this installation: " + cause.Error(),
		Hint:    "check the URL, and that no proxy with another certificate is in between"}
}
