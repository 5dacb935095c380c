package gatewaylink

import (
	"crypto/tls"
	"crypto/x509"
	"net"

	"dstack/internal/dstack"
	"dstack/internal/installationca"
)

// newTLSConfig returns how the process recognizes a server: by the installation authority, which has the fingerprint, or
// by a public certificate for the host in the URL. An empty fingerprint is none.
func newTLSConfig(host, fingerprint string) (*tls.Config, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		InsecureSkipVerify: true, // VerifyConnection verifies instead, also resumed sessions
	}
	if net.ParseIP(host) != nil || host == "localhost" {
		config.ServerName = installationca.ServerName
	}
	if fingerprint == "" {
		config.VerifyConnection = func(c tls.ConnectionState) error { return verifyPublic(c, host) }
		return config, nil
	}
	pinned, err := installationca.ClientConfig(fingerprint)
	if err != nil {
		return nil, err
	}
	config.VerifyConnection = func(c tls.ConnectionState) error {
		foreign := pinned.VerifyConnection(c)
		if foreign == nil || verifyPublic(c, host) == nil {
			return nil
		}
		return foreign
	}
	return config, nil
}

// verifyPublic checks that a server has a certificate for a host from an authority that the system trusts.
func verifyPublic(c tls.ConnectionState, host string) error {
	options := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	for _, intermediate := range c.PeerCertificates[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	if _, err := c.PeerCertificates[0].Verify(options); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the server's certificate is not valid: " + err.Error(), Cause: err,
			Hint: "check the URL of --server, and that no proxy with another certificate is in between"}
	}
	return nil
}
