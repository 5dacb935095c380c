package installationca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// renewalTime is how long before its end a server's certificate is replaced.
const renewalTime = serverTime / 3

// serverCertificate is the certificate of this process. Its key exists in memory alone.
type serverCertificate struct {
	authority *Authority
	names     []string
	now       func() time.Time

	mu          sync.Mutex
	certificate *tls.Certificate
	renewAt     time.Time
}

// ServerConfig returns the configuration of a server of the installation. Its certificate is for
// ServerName and for names, such as localhost and 127.0.0.1. It is issued at the first connection,
// and again before it ends.
func (a *Authority) ServerConfig(names ...string) *tls.Config {
	return a.serverConfig(time.Now, names)
}

func (a *Authority) serverConfig(now func() time.Time, names []string) *tls.Config {
	c := &serverCertificate{authority: a, names: slices.Clone(names), now: now}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current() },
	}
}

func (c *serverCertificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.certificate != nil && now.Before(c.renewAt) {
		return c.certificate, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := c.authority.issue(key, c.names, now)
	if err != nil {
		return nil, err
	}
	c.certificate, c.renewAt = &tls.Certificate{Certificate: chain, PrivateKey: key}, now.Add(serverTime-renewalTime)
	return c.certificate, nil
}
