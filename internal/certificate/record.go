package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"dstack/internal/decide/renewal"
)

// record is what the storage has of one ordered certificate: all processes that
// serve the domain share it.
type record struct {
	Certificate string    `json:"certificate,omitempty"` // with its chain, PEM
	Key         string    `json:"key,omitempty"`         // PEM
	Suggested   time.Time `json:"suggested,omitzero"`    // when the issuer suggests to renew it
	AskedAt     time.Time `json:"asked_at,omitzero"`     // when it was asked for that
	// What failed since the certificate was obtained, with the source that it had.
	Source    string          `json:"source,omitempty"`
	Failures  int             `json:"failures,omitempty"`
	Failure   renewal.Failure `json:"failure,omitempty"`
	TriedAt   time.Time       `json:"tried_at,omitzero"`
	HoldUntil time.Time       `json:"hold_until,omitzero"`
	Reason    string          `json:"reason,omitempty"`
	Hint      string          `json:"hint,omitempty"`
}

// ordersPrefix is the beginning of the keys of a domain at one ACME server.
func (k *Keeper) ordersPrefix(domain string) string {
	return DomainPrefix(domain) + "acme/" + k.acme.Load().issuerKey() + "/"
}

// recordKey returns where the record of a certificate is.
func (k *Keeper) recordKey(e *entry) string {
	return k.ordersPrefix(e.domain) + "certificates/" + strings.Replace(e.name, "*.", "_wildcard.", 1) + ".json"
}

// loadRecord reads a record and its certificate. Without one, both are zero.
func (k *Keeper) loadRecord(ctx context.Context, e *entry) (rec record, cert *tls.Certificate, err error) {
	text, err := k.opts.Storage.Load(ctx, k.recordKey(e))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil, nil
	}
	if err != nil {
		return record{}, nil, err
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return record{}, nil, fmt.Errorf("%s is damaged: %w", k.recordKey(e), err)
	}
	if rec.Certificate == "" {
		return rec, nil, nil
	}
	if cert, err = parsePair([]byte(rec.Certificate), []byte(rec.Key)); err != nil {
		return record{}, nil, fmt.Errorf("%s is damaged: %w", k.recordKey(e), err)
	}
	return rec, cert, nil
}

// storeRecord writes a record.
func (k *Keeper) storeRecord(ctx context.Context, e *entry, rec record) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return k.opts.Storage.Store(ctx, k.recordKey(e), text)
}

// facts returns what decides when a certificate is ordered.
func (r record) facts(e *entry, cert *tls.Certificate) renewal.Facts {
	f := renewal.Facts{Suggested: r.Suggested, TriedAt: r.TriedAt, HoldUntil: r.HoldUntil, Spread: e.spread()}
	if r.Source == e.sourceSum() && !e.isForced {
		f.Failures, f.Failure = r.Failures, r.Failure
	}
	if cert != nil {
		f.NotBefore, f.NotAfter = cert.Leaf.NotBefore, cert.Leaf.NotAfter
	}
	return f
}

// problem returns what failed last, if the source is still the same.
func (r record) problem(e *entry) problem {
	if r.Source != e.sourceSum() {
		return problem{}
	}
	return problem{r.Reason, r.Hint}
}

// sourceSum identifies a source: its failures say nothing about another one.
func (e *entry) sourceSum() string {
	text, err := json.Marshal(e.source)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// noteFailure writes a failed order into the record.
func (r *record) noteFailure(e *entry, failure renewal.Failure, p problem, held, now time.Time) {
	if r.Failure != failure || r.Source != e.sourceSum() {
		r.Failures = 0
	}
	r.Failures++
	r.Source, r.Failure, r.TriedAt, r.HoldUntil, r.Reason, r.Hint = e.sourceSum(), failure, now, held, p.reason, p.hint
}
