// Package certificate obtains, renews and serves the certificates of gateways:
// from an ACME server, from files, or from the internal authority.
package certificate

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// Domain is a domain for which a Keeper keeps certificates.
type Domain struct {
	Gateway dstack.GatewayID
	Name    string // lower case, without a star: example.com
	// Names are the names that need a certificate each, such as <run>.<Name>.
	// Those below a wildcard certificate need none.
	Names       []string
	Certificate *spec.Certificate // with the values of secrets; nil: none, plain HTTP
	// IsEarlier says that the gateway goes on serving the domain for a while only: the certificates that exist are
	// served, and none is ordered or renewed. Settings for DNS records are not needed.
	IsEarlier bool
}

// Options configure a Keeper.
type Options struct {
	Storage Storage // required
	ACME    ACME
	// HTTPPort and HTTPSPort are the ports of this process, for messages; 0: 80 and 443.
	HTTPPort, HTTPSPort int
	Addresses           []string // public addresses of this machine, for messages; empty: those of its network interfaces
	// Wants reports whether a name may get a certificate at its first handshake. It
	// is called by each handshake for a name that SetDomains did not list, and must
	// not block. nil: none may.
	Wants func(name string) bool
	// SessionKey is a secret that all processes of a gateway share, so that a client
	// may resume its TLS session at any of them. Empty: sessions are resumed only here.
	SessionKey []byte
	Log        *slog.Logger // nil: slog.Default
}

// Keeper keeps the certificates of a set of domains. It is safe for concurrent
// use. Nothing is obtained or renewed unless its Tasks run.
type Keeper struct {
	opts      Options
	tls       *tls.Config
	acme      atomic.Pointer[acmeServer]
	ticketKey atomic.Pointer[[]byte] // see Options.SessionKey
	keyWake   loop.Wake
	served    atomic.Pointer[servedCertificates]
	answers   challengeAnswers
	probes    probeSecrets
	logged    loop.RepeatFilter
	localWake loop.Wake      // for certificates that need no ACME server
	orderWake []loop.Wake    // one for each worker
	obtained  loop.Broadcast // a certificate was obtained, or could not be

	mu      sync.Mutex
	entries map[entryKey]*entry
	retired map[entryKey]*entry // of sources and names that changed, still served
	issuer  issuerState
	waiting int // handshakes that wait for a certificate
}

// maxOrders is how many certificates are ordered at once.
const maxOrders = 4

// New returns a Keeper without domains.
func New(opts Options) (*Keeper, error) {
	if opts.Storage == nil {
		return nil, errors.New("certificates need a storage")
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	k := &Keeper{opts: opts, entries: map[entryKey]*entry{}, retired: map[entryKey]*entry{},
		localWake: loop.NewWake(), keyWake: loop.NewWake()}
	for range maxOrders {
		k.orderWake = append(k.orderWake, loop.NewWake())
	}
	server, err := newACMEServer(opts.ACME)
	if err != nil {
		return nil, err
	}
	k.acme.Store(server)
	k.ticketKey.Store(&opts.SessionKey)
	k.served.Store(&servedCertificates{})
	k.tls = k.newTLSConfig()
	_, err = k.rotateSessionKeys(context.Background())
	return k, err
}

// SetDomains replaces the set of domains. Certificates of domains and names that
// stay go on being served, also while one from a new source is obtained. It does
// not block, and may be called again with the same set.
func (k *Keeper) SetDomains(domains []Domain) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wanted, hasChanged := map[entryKey]bool{}, false
	for _, d := range domains {
		if d.Certificate == nil {
			continue
		}
		for _, name := range namesOf(d) {
			key := entryKey{d.Gateway, name}
			wanted[key] = true
			hasChanged = k.addEntry(key, d) || hasChanged
		}
	}
	for key, e := range k.entries {
		if !wanted[key] && !(e.isOnDemand && k.mayDemand(e.name) && wantsDomain(domains, e)) {
			hasChanged = true
			k.retire(e)
		}
	}
	if hasChanged {
		k.publish()
		k.wakeAll()
	}
}

// addEntry adds a certificate that a domain needs, or changes its source. It
// reports whether something changed. The caller holds the mutex.
func (k *Keeper) addEntry(key entryKey, d Domain) bool {
	e := k.entries[key]
	if e != nil && e.domain == d.Name && (d.IsEarlier && e.cert != nil || isSameSource(e.source, d.Certificate)) {
		hasChanged := e.isKept != d.IsEarlier
		if hasChanged && !d.IsEarlier {
			e.due, e.problem = time.Time{}, problem{} // what was not done meanwhile
		}
		e.names, e.isOnDemand, e.isKept = d.Names, false, d.IsEarlier
		return hasChanged
	}
	next := &entry{entryKey: key, domain: d.Name, source: d.Certificate.Clone(), names: d.Names, isKept: d.IsEarlier, since: time.Now()}
	if e != nil && e.domain == d.Name {
		next.cert, next.isEarlier = e.cert, e.cert != nil // until there is one of the new source
	}
	k.entries[key] = next
	return true
}

// retire deletes an entry. Its certificate goes on being served while its domain
// lacks another one. The caller holds the mutex.
func (k *Keeper) retire(e *entry) {
	delete(k.entries, e.entryKey)
	if e.cert != nil {
		k.retired[e.entryKey] = e
	}
}

// wakeAll makes all tasks look for work.
func (k *Keeper) wakeAll() {
	k.localWake.Signal()
	for _, wake := range k.orderWake {
		wake.Signal()
	}
}

// mayDemand reports whether a name may get a certificate at its first handshake.
func (k *Keeper) mayDemand(name string) bool { return k.opts.Wants != nil && k.opts.Wants(name) }
