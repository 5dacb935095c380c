package certificate

import (
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
)

// servedCertificates are the certificates that handshakes get, by name. It is
// immutable.
type servedCertificates struct {
	byName map[string]*tls.Certificate // example.com or *.example.com
}

// find returns the certificate for the name of a server, nil if there is none.
func (s *servedCertificates) find(name string) *tls.Certificate {
	if cert := s.byName[name]; cert != nil {
		return cert
	}
	return s.byName[wildcardOf(name)]
}

// publish makes the certificates of all entries those that handshakes get. The
// caller holds the mutex.
func (k *Keeper) publish() {
	served := &servedCertificates{byName: map[string]*tls.Certificate{}}
	for _, e := range k.entries {
		if e.cert == nil {
			continue
		}
		served.byName[e.name] = e.cert
	}
	k.served.Store(served)
}

// Covers reports whether there is a certificate for a name that is valid now.
func (k *Keeper) Covers(name string) bool {
	cert := k.served.Load().find(normalizeName(name))
	return cert != nil && time.Now().Before(cert.Leaf.NotAfter)
}

// TLSConfig returns the configuration of listeners for https. It is the same at
// each call; a copy would miss changes of the session keys.
func (k *Keeper) TLSConfig() *tls.Config { return k.tls }

func (k *Keeper) newTLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		GetCertificate: k.chooseCertificate,
	}
}

// chooseCertificate returns the certificate for a handshake. With nil, the client
// gets the alert unrecognized_name.
func (k *Keeper) chooseCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.served.Load().find(normalizeName(hello.ServerName)), nil
}

func normalizeName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// ChallengeHandler returns a handler that answers the HTTP-01 challenges of the
// ACME server, and passes all other requests to next.
func (k *Keeper) ChallengeHandler(next http.Handler) http.Handler { return next }
