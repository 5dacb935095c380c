// Package certificate obtains, renews and serves the certificates of gateways:
// from an ACME server, from files, or from the installation's own authority.
package certificate

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
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
}

// ACME is the ACME server of an installation, and the account there.
type ACME struct {
	Server    string // URL of the directory; empty: Let's Encrypt
	KeyID     string // of the external account binding; empty: none
	HMACKey   string // of the external account binding, base64url
	Email     string // for domains whose certificate has none
	RootsFile string // PEM file of authorities that the server's certificate may have; empty: the system's
	Profile   string // of certificates, if the server offers several
	// HTTPPort and HTTPSPort are where the server connects to for its challenges;
	// 0: 80 and 443, which public servers use.
	HTTPPort, HTTPSPort int
}

// Options configure a Keeper.
type Options struct {
	Storage Storage // required
	ACME    ACME
	// HTTPPort and HTTPSPort are the ports of this process, for messages; 0: 80 and 443.
	HTTPPort, HTTPSPort int
	Addresses           []string // public addresses of this machine, for messages; empty: those of its network interfaces
	Resolvers           []string // name servers as host:port; empty: the system's
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
	opts  Options
	tls   *tls.Config
	owner string // of locks: this Keeper

	mu      sync.Mutex
	entries map[entryKey]*entry
	served  atomic.Pointer[servedCertificates]
	changed loop.Wake // entries changed, or became due
}

// entryKey identifies a certificate of a gateway.
type entryKey struct {
	gateway dstack.GatewayID
	name    string // example.com or *.example.com
}

// entry is what a Keeper knows of one certificate. The Keeper's mutex guards it.
type entry struct {
	entryKey
	domain string
	source *spec.Certificate
	cert   *tls.Certificate // with its leaf; nil: there is none yet
	due    time.Time        // of the next look at it
	seen   string           // with type files: sizes and times of the files that were read last
	reason string           // why the last try failed; empty: it did not
	hint   string
}

// New returns a Keeper without domains.
func New(opts Options) (*Keeper, error) {
	if opts.Storage == nil {
		return nil, errors.New("certificates need a storage")
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	k := &Keeper{opts: opts, owner: rand.Text(), entries: map[entryKey]*entry{}, changed: loop.NewWake()}
	k.served.Store(&servedCertificates{})
	k.tls = k.newTLSConfig()
	return k, nil
}

// SetDomains replaces the set of domains. Certificates of domains and names that
// stay go on being served, also while one from a new source is obtained. It does
// not block, and may be called again with the same set.
func (k *Keeper) SetDomains(domains []Domain) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wanted := map[entryKey]bool{}
	for _, d := range domains {
		if d.Certificate == nil {
			continue
		}
		for _, name := range namesOf(d) {
			key := entryKey{d.Gateway, name}
			wanted[key] = true
			e := k.entries[key]
			if e == nil {
				e = &entry{entryKey: key}
				k.entries[key] = e
			}
			if e.domain != d.Name || !reflect.DeepEqual(e.source, d.Certificate) {
				e.domain, e.source = d.Name, cloneSource(d.Certificate)
				e.due, e.seen, e.reason, e.hint = time.Time{}, "", "", ""
			}
		}
	}
	for key := range k.entries {
		if !wanted[key] {
			delete(k.entries, key)
		}
	}
	k.publish()
	k.changed.Signal()
}

// namesOf returns the names of the certificates of a domain.
func namesOf(d Domain) []string {
	hasWildcard := d.Certificate.Type != typeACME || hasDNS(d.Certificate)
	var names []string
	if hasWildcard {
		names = append(names, "*."+d.Name)
	}
	if d.Certificate.Type == typeFiles {
		return names
	}
	for _, name := range d.Names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !hasWildcard || wildcardOf(name) != "*."+d.Name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// wildcardOf returns the wildcard that covers a name: *.example.com.
func wildcardOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return "*." + parent
}
