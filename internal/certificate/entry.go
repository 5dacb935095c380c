package certificate

import (
	"crypto/tls"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// entryKey identifies a certificate of a gateway.
type entryKey struct {
	gateway dstack.GatewayID
	name    string // example.com or *.example.com
}

// entry is what a Keeper knows of one certificate. The Keeper's mutex guards it.
type entry struct {
	entryKey
	domain     string
	source     *spec.Certificate // immutable
	isOnDemand bool              // a handshake asked for it, SetDomains did not
	isUrgent   bool              // a handshake waits for it
	isRunning  bool              // a worker looks at it now
	isForced   bool              // the next look ignores what failed before
	since      time.Time         // when it was added, or got its source
	due        time.Time         // of the next look at it
	cert       *tls.Certificate  // with its leaf; nil: there is none yet
	isEarlier  bool              // cert is of the earlier source
	seen       string            // with type files: sizes and times of the files that were read last
	names      []string          // with type files: names that the certificate should have
	record     record            // with type lets-encrypt: what the storage has
	problem    problem           // of the last try
	warned     int               // days of the last warning that was logged
}

// problem says why a try failed; the zero value: it did not.
type problem struct{ reason, hint string }

// isOrdered reports whether the certificate comes from an ACME server.
func (e *entry) isOrdered() bool { return e.source.Type == spec.CertificateLetsEncrypt }

// hasDNS reports whether the issuer checks the name by DNS records.
func (e *entry) hasDNS() bool { return e.isOrdered() && e.source.DNS != nil }

// spread returns a number in [0, 1) that differs between names.
func (e *entry) spread() float64 {
	h := fnv.New32a()
	h.Write([]byte(e.name)) //nolint:errcheck // never fails
	return float64(h.Sum32()) / (1 << 32)
}

// namesOf returns the names of the certificates of a domain.
func namesOf(d Domain) []string {
	isEach := d.Certificate.Type == spec.CertificateLetsEncrypt && d.Certificate.DNS == nil
	var names []string
	if !isEach {
		names = append(names, "*."+d.Name)
	}
	if d.Certificate.Type != spec.CertificateFiles {
		for _, name := range d.Names {
			name = normalizeName(name)
			isBelow := name == d.Name || strings.HasSuffix(name, "."+d.Name)
			if isHostName(name) && isBelow && (isEach || wildcardOf(name) != "*."+d.Name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// wantsDomain reports whether one of the domains gives a certificate for each
// name, as when e was added at a handshake.
func wantsDomain(domains []Domain, e *entry) bool {
	return slices.ContainsFunc(domains, func(d Domain) bool {
		return d.Gateway == e.gateway && d.Name == e.domain && d.Certificate != nil && isSameSource(d.Certificate, e.source)
	})
}

// wildcardOf returns the wildcard that covers a name: *.example.com.
func wildcardOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return "*." + parent
}

// normalizeName returns a name as entries have it.
func normalizeName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// isHostName reports whether a name consists of labels of lower-case letters, digits and dashes.
func isHostName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// isSameSource reports whether two sources are equal.
func isSameSource(a, b *spec.Certificate) bool {
	if a.Type != b.Type || a.Email != b.Email || a.Cert != b.Cert || a.Key != b.Key || (a.DNS == nil) != (b.DNS == nil) {
		return false
	}
	return a.DNS == nil || a.DNS.Provider == b.DNS.Provider && maps.Equal(a.DNS.Settings, b.DNS.Settings)
}
