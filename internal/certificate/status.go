package certificate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dstack/internal/decide/renewal"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Statuses returns what is known of the certificates of a gateway, by name.
func (k *Keeper) Statuses(gateway dstack.GatewayID) []dstack.CertificateStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	queue := k.queue(now)
	var all []dstack.CertificateStatus
	for _, e := range k.entries {
		if e.gateway != gateway {
			continue
		}
		s := e.status(now)
		if place := slices.Index(queue, e); place >= 0 && s.State == dstack.CertificatePending {
			s.Queue, s.Queued = place+1, len(queue)
		}
		all = append(all, e.expandStatus(s)...)
	}
	slices.SortFunc(all, func(a, b dstack.CertificateStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// queue returns the certificates that wait for a worker to order them, in their
// order. The caller holds the mutex.
func (k *Keeper) queue(now time.Time) []*entry {
	var waiting []*entry
	for _, e := range k.entries {
		if e.isOrdered() && e.cert == nil && !e.isRunning && !e.due.After(now) {
			waiting = append(waiting, e)
		}
	}
	slices.SortFunc(waiting, compareOrders)
	return waiting
}

// compareOrders sorts certificates by the order in which they are ordered: those
// that a handshake waits for first, then the oldest.
func compareOrders(a, b *entry) int {
	if a.isUrgent != b.isUrgent {
		if a.isUrgent {
			return -1
		}
		return 1
	}
	return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.name, b.name))
}

// status returns the status of one certificate.
func (e *entry) status(now time.Time) dstack.CertificateStatus {
	s := dstack.CertificateStatus{Name: e.name, State: dstack.CertificatePending, Reason: e.problem.reason, Hint: e.problem.hint}
	if e.problem.reason != "" {
		s.State, s.NextAt = dstack.CertificateMissing, e.due
	}
	if e.cert == nil {
		return s
	}
	leaf := e.cert.Leaf
	s.IsEarlier = e.isEarlier
	s.Issuer, s.NotAfter = leaf.Issuer.CommonName, leaf.NotAfter
	if !now.Before(leaf.NotAfter) {
		s.State, s.Reason = dstack.CertificateMissing, joinReasons("it expired on "+formatDay(leaf.NotAfter), s.Reason)
		return s
	}
	s.State = dstack.CertificateValid
	if e.problem.reason != "" {
		s.State = dstack.CertificateFailing
	}
	if renewal.WarningDays(leaf.NotBefore, leaf.NotAfter, now) > 0 {
		s.Reason = joinReasons("it expires on "+formatDay(leaf.NotAfter), s.Reason)
	}
	return s
}

// expandStatus returns the status of a certificate for each of its names if it is
// of files, and may lack some.
func (e *entry) expandStatus(s dstack.CertificateStatus) []dstack.CertificateStatus {
	if e.source.Type != spec.CertificateFiles || e.cert == nil {
		return []dstack.CertificateStatus{s}
	}
	var all []dstack.CertificateStatus
	for _, name := range e.servedNames() {
		s.Name = name
		all = append(all, s)
	}
	for _, name := range e.names {
		if e.cert.Leaf.VerifyHostname(name) != nil {
			all = append(all, dstack.CertificateStatus{Name: name, State: dstack.CertificateMissing,
				Reason: fmt.Sprintf("%s is not for %s", e.source.Cert, name), Hint: "use a certificate for *." + e.domain})
		}
	}
	return all
}

// servedNames returns the names for which handshakes get the certificate.
func (e *entry) servedNames() []string {
	if e.source.Type != spec.CertificateFiles {
		return []string{e.name}
	}
	return namesBelow(e.cert.Leaf, e.domain)
}

func joinReasons(first, second string) string {
	if second == "" {
		return first
	}
	return first + "; " + second
}

func formatDay(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// warn logs a certificate that ends soon, once for each number of days. The
// caller holds the mutex.
func (k *Keeper) warn(e *entry, now time.Time) {
	if e.cert == nil {
		return
	}
	days := renewal.WarningDays(e.cert.Leaf.NotBefore, e.cert.Leaf.NotAfter, now)
	if days != 0 && days != e.warned {
		k.opts.Log.Warn("a certificate ends soon", "name", e.name, "gateway", e.gateway, "not_after", e.cert.Leaf.NotAfter, "reason", e.problem.reason)
	}
	e.warned = days
}
