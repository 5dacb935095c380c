package certificate

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"dstack/internal/decide/renewal"
)

// issuerState is what a Keeper knows of its ACME server beside single orders. The
// Keeper's mutex guards it.
type issuerState struct {
	down      renewal.Facts        // failures to reach the server at all
	problem   problem              // of the last one
	holdUntil map[string]time.Time // by domain: the server limits its orders
}

// blockedUntil returns when the server may be asked for an order of a domain. The
// caller holds the mutex.
func (s *issuerState) blockedUntil(domain string) time.Time {
	until := s.holdUntil[domain]
	if s.down.Failures > 0 {
		if next := renewal.NextTry(s.down); next.After(until) {
			until = next
		}
	}
	return until
}

// refreshOrdered looks at a certificate of the ACME server: it loads what the
// storage has, and orders the certificate if that is due.
func (k *Keeper) refreshOrdered(ctx context.Context, e *entry) result {
	rec, cert, err := k.loadRecord(ctx, e)
	if err != nil {
		return k.storageFailed(e, err)
	}
	now := time.Now()
	if e.isKept {
		return keepServing(e, result{cert: newCertificate(e, cert), record: rec}, now)
	}
	if due := renewal.NextTry(rec.facts(e, cert)); due.After(now) {
		return k.adopt(ctx, e, rec, cert, due, now)
	}
	if until, p := k.blocked(e); until.After(now) {
		return result{cert: newCertificate(e, cert), record: rec, due: until, problem: p}
	}
	err = withLock(ctx, k.opts.Storage, k.recordKey(e), func(ctx context.Context) error {
		if rec, cert, err = k.loadRecord(ctx, e); err != nil {
			return err
		}
		if renewal.NextTry(rec.facts(e, cert)).After(time.Now()) {
			return nil // another process was faster
		}
		return k.tryOrder(ctx, e, &rec, &cert)
	})
	blocked, p := k.blocked(e)
	due := renewal.NextTry(rec.facts(e, cert))
	switch {
	case errors.Is(err, errLocked):
		return result{cert: newCertificate(e, cert), record: rec, due: time.Now().Add(lockedInterval), problem: e.problem}
	case err != nil:
		return k.storageFailed(e, err)
	case blocked.After(due):
		return result{cert: newCertificate(e, cert), record: rec, due: blocked, problem: p}
	}
	return result{cert: newCertificate(e, cert), record: rec, due: due, problem: rec.problem(e)}
}

// keptInterval is how often the certificate of an earlier domain is looked at.
const keptInterval = 10 * time.Minute

// keepServing returns the result for a certificate of an earlier domain: the one that there is.
func keepServing(e *entry, found result, now time.Time) result {
	found.due, found.problem = now.Add(keptInterval), problem{}
	if found.cert == nil && e.cert == nil {
		found.problem.reason = "the gateway has another domain now"
	}
	return found
}

// tryOrder orders a certificate once and stores how that went.
func (k *Keeper) tryOrder(ctx context.Context, e *entry, rec *record, cert **tls.Certificate) error {
	var held hold
	ordered, obtained, err := k.orderCertificate(withHold(ctx, &held), e, *rec, *cert)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	if err == nil {
		*rec, *cert = ordered, obtained
		k.noteAnswer()
		return k.storeRecord(ctx, e, *rec)
	}
	failure, p := k.explainFailure(e, err, held.until)
	k.opts.Log.Debug("an order of a certificate failed", "name", e.name, "failure", failure, "err", err)
	if failure == renewal.Unreachable { // that says nothing about this certificate
		k.noteUnreachable(p, held.until, now)
		return nil
	}
	if failure == renewal.Limited {
		k.noteLimit(e.domain, held.until)
	}
	if failure != renewal.Misdirected && failure != renewal.Provider {
		k.noteAnswer()
	}
	rec.noteFailure(e, failure, p, held.until, now)
	return k.storeRecord(ctx, e, *rec)
}

// adopt takes what the storage has, and asks the issuer from time to time when it
// wants the certificate to be renewed.
func (k *Keeper) adopt(ctx context.Context, e *entry, rec record, cert *tls.Certificate, due, now time.Time) result {
	if cert != nil && now.Sub(rec.AskedAt) > suggestionInterval {
		k.askSuggestion(ctx, &rec, cert, now)
		if err := k.storeRecord(ctx, e, rec); err != nil {
			k.opts.Log.Debug("the time of a renewal cannot be stored", "name", e.name, "err", err)
		}
		due = renewal.NextTry(rec.facts(e, cert))
	}
	if cert != nil {
		if next := rec.AskedAt.Add(suggestionInterval + time.Second); next.Before(due) {
			due = next
		}
	}
	return result{cert: newCertificate(e, cert), record: rec, due: due, problem: rec.problem(e)}
}

// newCertificate returns a certificate if it is not the one that is served already.
func newCertificate(e *entry, cert *tls.Certificate) *tls.Certificate {
	if cert == nil || e.cert != nil && e.cert.Leaf.Equal(cert.Leaf) {
		return nil
	}
	return cert
}

// storageRetry is how long to wait after the storage failed.
const storageRetry = 5 * time.Second

// storageFailed returns the result of a look that could not use the storage. The
// certificate that is served stays.
func (k *Keeper) storageFailed(e *entry, err error) result {
	p := problem{"the storage of certificates fails: " + cleanText(err.Error()), "it is tried again by itself"}
	if e.cert != nil && time.Now().Before(renewal.RenewAt(e.cert.Leaf.NotBefore, e.cert.Leaf.NotAfter, time.Time{}, e.spread())) {
		p = problem{} // nothing is due
	}
	return result{record: e.record, due: time.Now().Add(storageRetry), problem: p}
}

// blocked returns when the ACME server may be asked for an order, and why not earlier.
func (k *Keeper) blocked(e *entry) (time.Time, problem) {
	k.mu.Lock()
	defer k.mu.Unlock()
	until := k.issuer.blockedUntil(e.domain)
	if k.issuer.down.Failures > 0 {
		return until, k.issuer.problem
	}
	return until, problem{"the issuer limits orders for " + e.domain + " until " + formatDay(until), "it is tried again by itself"}
}

// noteAnswer remembers that the ACME server works.
func (k *Keeper) noteAnswer() {
	k.mu.Lock()
	defer k.mu.Unlock()
	wasDown := k.issuer.down.Failures > 0
	k.issuer.down, k.issuer.problem = renewal.Facts{}, problem{}
	if wasDown {
		for _, e := range k.entries {
			if e.isOrdered() && !e.isRunning {
				e.due = time.Time{}
			}
		}
		k.wakeAll()
	}
}

// noteUnreachable remembers that the ACME server does not work, for all certificates.
func (k *Keeper) noteUnreachable(p problem, until, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issuer.down.Failures++
	k.issuer.down.Failure, k.issuer.down.TriedAt, k.issuer.down.HoldUntil = renewal.Unreachable, now, until
	k.issuer.problem = p
}

// defaultHold is how long a limit holds whose end the server does not say.
const defaultHold = time.Hour

// noteLimit remembers that the ACME server limits the orders of a domain.
func (k *Keeper) noteLimit(domain string, until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.issuer.holdUntil == nil {
		k.issuer.holdUntil = map[string]time.Time{}
	}
	if until.IsZero() {
		until = time.Now().Add(defaultHold)
	}
	k.issuer.holdUntil[domain] = until
}
