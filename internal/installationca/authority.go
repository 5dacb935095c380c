// Package installationca is the installation authority: the certificate authority with which the
// servers of one installation identify themselves to gateway processes and to each other, so that
// those can use TLS without a public certificate and without trusting any other authority. It issues
// nothing for the names of gateways: that does the internal authority, of package certificate.
package installationca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// ServerName is the name in the certificate of every server of an installation. Clients check this
// name and the fingerprint of the authority, whatever address they connect to.
const ServerName = "server.dstack.internal"

const (
	authorityTime = 50 * 365 * 24 * time.Hour
	serverTime    = 90 * 24 * time.Hour
	// maxClockError is by how much the clocks of clients may be late.
	maxClockError = 24 * time.Hour
)

// Authority issues the certificates of the servers of one installation. It is immutable.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New returns a new authority. All servers of the installation must use the same one: see Marshal.
func New(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "dstack installation"},
		NotBefore: now.Add(-maxClockError), NotAfter: now.Add(authorityTime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate: certificate, key: key}, nil
}

func newSerial() *big.Int {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	return new(big.Int).SetBytes(raw)
}

// The types of the PEM blocks of an authority.
const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

// Marshal returns the authority with its key, for Parse. Store it encrypted.
func (a *Authority) Marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.CertificatePEM(), pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: key})...), nil
}

// Parse is the opposite of Marshal.
func Parse(data []byte) (*Authority, error) {
	first, rest := pem.Decode(data)
	second, _ := pem.Decode(rest)
	if first == nil || first.Type != certificateBlock || second == nil || second.Type != keyBlock {
		return nil, errors.New("this is no certificate authority of an installation")
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, errors.New("the key of the installation's certificate authority is not that of its certificate")
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// CertificatePEM returns the certificate of the authority, for clients such as curl.
func (a *Authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: a.certificate.Raw})
}

// Fingerprint returns the SHA-256 of the authority's public key, hexadecimal. It is not secret.
func (a *Authority) Fingerprint() string { return fingerprintOf(a.certificate) }

func fingerprintOf(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// issue returns the chain of a server's certificate for ServerName and for names, which may be
// addresses.
func (a *Authority) issue(key *ecdsa.PrivateKey, names []string, now time.Time) ([][]byte, error) {
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: ServerName}, DNSNames: []string{ServerName},
		NotBefore: now.Add(-maxClockError), NotAfter: now.Add(serverTime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of the server: %w", err)
	}
	return [][]byte{raw, a.certificate.Raw}, nil
}
