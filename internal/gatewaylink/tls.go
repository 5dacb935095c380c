package gatewaylink

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"

	"dstack/internal/dstack"
)

// serverName is the name in the certificates of an installation's servers.
const serverName = "server.dstack.internal"

// newTLSConfig returns how the process recognizes a server: by the installation's authority, which has the
// fingerprint, or by a public certificate for the host in the URL.
func newTLSConfig(host, fingerprint string) *tls.Config {
	name := host
	if net.ParseIP(host) != nil || host == "localhost" {
		name = serverName
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: name,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
		InsecureSkipVerify: true, // VerifyConnection verifies instead, also resumed sessions
		VerifyConnection: func(c tls.ConnectionState) error {
			return verifyServer(c.PeerCertificates, host, fingerprint)
		},
	}
}

func verifyServer(chain []*x509.Certificate, host, fingerprint string) error {
	if len(chain) == 0 {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the server has no certificate"}
	}
	options := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	for _, c := range chain {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		if fingerprint != "" && c.IsCA && hex.EncodeToString(sum[:]) == fingerprint {
			options.Roots, options.DNSName = x509.NewCertPool(), serverName
			options.Roots.AddCert(c)
		}
	}
	if _, err := chain[0].Verify(options); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "this is not a server of the gateway's installation: " + err.Error(),
			Hint: "check the URL of --server, and that no proxy with another certificate is in between", Cause: err}
	}
	return nil
}
