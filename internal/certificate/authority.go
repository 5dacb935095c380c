package certificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"
)

// The lifetimes of what the internal authority issues: the one of `certificate: {type: internal}`, for the names of
// gateways. It is not that of package installationca, for the servers themselves: the processes of a gateway issue with
// it, and clients trust its root.
const (
	rootLifetime         = 20 * 365 * 24 * time.Hour
	intermediateLifetime = 5 * 365 * 24 * time.Hour
	leafLifetime         = 30 * 24 * time.Hour
	maxClockSkew         = time.Hour // certificates are valid so long before they are made
)

// The keys of the authority in the storage. Only the server has rootKey. The process of a gateway
// has an intermediate authority, which can issue certificates below its domain only.
const (
	rootKey = "authority/root.key.pem"
	// RootCertificate is the certificate of the authority, in PEM.
	RootCertificate = "authority/root.crt.pem"
)

// intermediateKey is where the intermediate authority of a domain is: its
// certificate and its key, in PEM.
func intermediateKey(domain string) string { return DomainPrefix(domain) + "authority.pem" }

// issuer is a certificate that may sign others, and its key.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Root returns the root certificate of the internal authority in PEM.
// It makes the authority if there is none yet.
func Root(ctx context.Context, storage Storage) ([]byte, error) {
	root, err := openRoot(ctx, storage)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(root.cert.Raw), nil
}

// PrepareAuthority makes the intermediate authority with which gateways issue
// their certificates below a domain, if there is none yet. Only the server can do
// that, because only it has the key of the root.
func PrepareAuthority(ctx context.Context, storage Storage, domain string) error {
	_, err := openIntermediate(ctx, storage, domain)
	return err
}

// openRoot reads the root, or makes it.
func openRoot(ctx context.Context, storage Storage) (*issuer, error) {
	return openIssuer(ctx, storage, rootKey, func() (*issuer, error) {
		root, err := newIssuer(nil, &x509.Certificate{Subject: pkix.Name{CommonName: "dstack internal authority"}, MaxPathLen: 1}, rootLifetime)
		if err != nil {
			return nil, err
		}
		return root, storage.Store(ctx, RootCertificate, encodeCertificate(root.cert.Raw))
	})
}

// openIntermediate reads the intermediate authority of a domain, or makes it.
func openIntermediate(ctx context.Context, storage Storage, domain string) (*issuer, error) {
	return openIssuer(ctx, storage, intermediateKey(domain), func() (*issuer, error) {
		root, err := openRoot(ctx, storage)
		if err != nil {
			return nil, err
		}
		return newIssuer(root, &x509.Certificate{Subject: pkix.Name{CommonName: "dstack internal authority for " + domain},
			MaxPathLenZero: true, PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{domain}}, intermediateLifetime)
	})
}

// openIssuer reads an issuer from the storage. If it is not there, or ends before
// a leaf would, openIssuer makes it and writes it.
func openIssuer(ctx context.Context, storage Storage, key string, build func() (*issuer, error)) (*issuer, error) {
	if found, err := loadIssuer(ctx, storage, key); !errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	var made *issuer
	err := waitForLock(ctx, storage, key, func(ctx context.Context) error {
		var err error
		if made, err = loadIssuer(ctx, storage, key); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if made, err = build(); err != nil {
			return err
		}
		text, err := made.encode()
		if err != nil {
			return err
		}
		return storage.Store(ctx, key, text)
	})
	return made, err
}

// loadIssuer reads an issuer. One that ends before a leaf would counts as absent.
func loadIssuer(ctx context.Context, storage Storage, key string) (*issuer, error) {
	text, err := storage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	pair, err := parsePair(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s in the storage of certificates is damaged: %w", key, err)
	}
	if time.Until(pair.Leaf.NotAfter) < 2*leafLifetime {
		return nil, fs.ErrNotExist
	}
	return &issuer{pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)}, nil
}

// newIssuer makes a certificate that may sign others. With parent nil it signs itself.
func newIssuer(parent *issuer, template *x509.Certificate, lifetime time.Duration) (*issuer, error) {
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	raw, key, err := signCertificate(parent, template, lifetime)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return &issuer{cert, key}, err
}

// issue makes a certificate for names, with its chain.
func (i *issuer) issue(names []string, lifetime time.Duration) (*tls.Certificate, error) {
	raw, key, err := signCertificate(i, &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, lifetime)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(raw)
	return &tls.Certificate{Certificate: [][]byte{raw, i.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}

// signCertificate makes a key and a certificate for it.
func signCertificate(parent *issuer, template *x509.Certificate, lifetime time.Duration) (raw []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-maxClockSkew), now.Add(lifetime)
	if parent == nil {
		parent = &issuer{template, key}
	}
	raw, err = x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	return raw, key, err
}

// encode writes the certificate and its key in PEM.
func (i *issuer) encode() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{encodeCertificate(i.cert.Raw), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}, nil), nil
}

func encodeCertificate(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}
