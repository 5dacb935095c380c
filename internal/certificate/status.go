package certificate

import (
	"cmp"
	"slices"
	"time"

	"dstack/internal/dstack"
)

// Statuses returns what is known of the certificates of a gateway, by name.
func (k *Keeper) Statuses(gateway dstack.GatewayID) []dstack.CertificateStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []dstack.CertificateStatus
	for _, e := range k.entries {
		if e.gateway == gateway {
			all = append(all, e.status(time.Now()))
		}
	}
	slices.SortFunc(all, func(a, b dstack.CertificateStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// status returns the status of one certificate.
func (e *entry) status(now time.Time) dstack.CertificateStatus {
	s := dstack.CertificateStatus{Name: e.name, State: dstack.CertificatePending, Reason: e.reason, Hint: e.hint}
	if e.reason != "" {
		s.State, s.NextAt = dstack.CertificateMissing, e.due
	}
	if e.cert == nil {
		return s
	}
	s.Issuer, s.NotAfter = e.cert.Leaf.Issuer.CommonName, e.cert.Leaf.NotAfter
	if now.Before(s.NotAfter) {
		s.State = dstack.CertificateValid
		if e.reason != "" {
			s.State = dstack.CertificateFailing
		}
	}
	return s
}
