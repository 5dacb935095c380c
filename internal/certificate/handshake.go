package certificate

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"

	"dstack/internal/spec"
)

// The limits of handshakes that wait for a certificate.
const (
	maxHandshakeWait = 8 * time.Second
	maxWaiting       = 200
)

// maxDemanded limits the certificates of a gateway that only handshakes asked for.
const maxDemanded = 100

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

// publish makes the certificates of all entries those that handshakes get, and
// forgets retired ones that nothing needs any more. The caller holds the mutex.
func (k *Keeper) publish() {
	served := &servedCertificates{byName: map[string]*tls.Certificate{}}
	isIncomplete := map[string]bool{} // by domain
	for _, e := range k.entries {
		if e.cert == nil {
			isIncomplete[e.domain] = true
			continue
		}
		for _, name := range e.servedNames() {
			served.byName[name] = e.cert
		}
	}
	for key, e := range k.retired {
		if !isIncomplete[e.domain] || time.Now().After(e.cert.Leaf.NotAfter) {
			delete(k.retired, key)
			continue
		}
		for _, name := range e.servedNames() {
			if served.byName[name] == nil {
				served.byName[name] = e.cert
			}
		}
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
	name := normalizeName(hello.ServerName)
	if isChallenge, isProbe := isTLSChallenge(hello.SupportedProtos); isChallenge {
		return k.answerTLSChallenge(hello.Context(), name, isProbe)
	}
	if cert := k.served.Load().find(name); cert != nil || name == "" {
		return cert, nil
	}
	return k.awaitCertificate(hello.Context(), name), nil
}

// awaitCertificate waits for the first certificate of a name, if one is ordered or
// may be. It returns nil if there is none in time.
func (k *Keeper) awaitCertificate(ctx context.Context, name string) *tls.Certificate {
	if !k.enterWait(name) {
		return nil
	}
	defer k.leaveWait()
	ctx, cancel := context.WithTimeout(ctx, maxHandshakeWait)
	defer cancel()
	for {
		changed := k.obtained.Changed()
		cert := k.served.Load().find(name)
		if cert != nil || !k.isExpected(name) {
			return cert
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// enterWait counts a handshake that waits, and puts its certificate at the head of
// the queue. It returns false if waiting is useless.
func (k *Keeper) enterWait(name string) bool {
	mayDemand := k.mayDemand(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.findEntry(name)
	if e == nil && mayDemand {
		e = k.addOnDemand(name)
	}
	if e == nil || e.problem.reason != "" || k.waiting >= maxWaiting {
		return false
	}
	k.waiting++
	if !e.isUrgent {
		e.isUrgent = true
		k.wakeAll()
	}
	return true
}

func (k *Keeper) leaveWait() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting--
}

// findEntry returns the entry whose certificate covers a name. The caller holds the mutex.
func (k *Keeper) findEntry(name string) *entry {
	wildcard := wildcardOf(name)
	var found *entry
	for _, e := range k.entries {
		if e.name == name {
			return e
		}
		if e.name == wildcard {
			found = e
		}
	}
	return found
}

// addOnDemand adds an entry for a name below a domain that gives each name its own
// certificate; nil if there is no such domain. The caller holds the mutex.
func (k *Keeper) addOnDemand(name string) *entry {
	_, parent, _ := strings.Cut(name, ".")
	var model *entry
	demanded := 0
	for _, e := range k.entries {
		if e.domain == parent && !e.isKept && e.source.Type == spec.CertificateLetsEncrypt && e.source.DNS == nil {
			model = e
		}
		if e.isOnDemand {
			demanded++
		}
	}
	if model == nil || demanded >= maxDemanded || !isHostName(name) {
		return nil
	}
	e := &entry{entryKey: entryKey{model.gateway, name}, domain: model.domain, source: model.source, isOnDemand: true, since: time.Now()}
	k.entries[e.entryKey] = e
	return e
}

// isExpected reports whether a certificate for a name is still on its way.
func (k *Keeper) isExpected(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.findEntry(name)
	return e != nil && e.problem.reason == ""
}
