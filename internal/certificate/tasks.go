package certificate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"dstack/internal/decide/renewal"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// lockedInterval is how often a certificate is looked at that another process orders.
const lockedInterval = 2 * time.Second

// maxIdle is the longest wait of a task for work.
const maxIdle = time.Hour

// Tasks returns what keeps the certificates. They run until their context ends.
func (k *Keeper) Tasks() []loop.Task {
	tasks := []loop.Task{
		loop.Repeat("certificates of files and of the internal authority", k.localWake, k.refreshLocal),
		loop.Repeat("keys of TLS sessions", k.keyWake, k.rotateSessionKeys),
	}
	for i, wake := range k.orderWake {
		tasks = append(tasks, loop.Repeat(fmt.Sprintf("orders of certificates %d", i+1), wake, k.runOrders))
	}
	return tasks
}

// result is what a look at an entry found out.
type result struct {
	cert    *tls.Certificate // nil: the present one stays
	record  record
	seen    string
	due     time.Time
	problem problem
}

// refreshLocal looks at the certificates that need no ACME server.
func (k *Keeper) refreshLocal(ctx context.Context) (time.Duration, error) {
	return k.work(ctx, func(e *entry) bool { return !e.isOrdered() }, func(ctx context.Context, e *entry) (found result) {
		now := time.Now()
		var err error
		if e.isKept && e.cert != nil {
			return keepServing(e, result{seen: e.seen}, now)
		}
		if e.source.Type == spec.CertificateFiles {
			found.due = now.Add(fileInterval)
			found.cert, found.seen, err = loadFiles(e.source.Cert, e.source.Key, e.domain, e.seen, now)
		} else {
			found.cert, found.due, err = k.issueInternal(ctx, e, now)
		}
		if err != nil {
			found.problem = problem{reason: err.Error()}
			if known, ok := errors.AsType[*dstack.Error](err); ok {
				found.problem.hint = known.Hint
			}
		} else if found.cert == nil {
			found.problem = e.problem // the files did not change
		}
		return found
	})
}

// internalRetry is how long to wait after the internal authority could not issue.
const internalRetry = 5 * time.Second

// issueInternal obtains a certificate from the internal authority.
func (k *Keeper) issueInternal(ctx context.Context, e *entry, now time.Time) (*tls.Certificate, time.Time, error) {
	authority, err := openIntermediate(ctx, k.opts.Storage, e.domain)
	if err != nil {
		return nil, now.Add(internalRetry), &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "the internal authority cannot issue a certificate: " + cleanText(err.Error()), Hint: "it is tried again by itself"}
	}
	cert, err := authority.issue([]string{e.name}, leafLifetime)
	if err != nil {
		return nil, now.Add(internalRetry), err
	}
	return cert, renewal.RenewAt(cert.Leaf.NotBefore, cert.Leaf.NotAfter, time.Time{}, e.spread()), nil
}

// runOrders looks at the certificates of the ACME server.
func (k *Keeper) runOrders(ctx context.Context) (time.Duration, error) {
	return k.work(ctx, (*entry).isOrdered, k.refreshOrdered)
}

// work looks at the entries that are due, one after another.
func (k *Keeper) work(ctx context.Context, isMine func(*entry) bool, look func(context.Context, *entry) result) (time.Duration, error) {
	for {
		e, wait := k.beginNext(time.Now(), isMine)
		if e == nil {
			return wait, nil
		}
		found := look(ctx, e)
		k.finish(e, found, ctx.Err() != nil)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// beginNext marks the next entry that is due as running and returns a copy of it;
// or nil and how long to wait.
func (k *Keeper) beginNext(now time.Time, isMine func(*entry) bool) (*entry, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var next *entry
	wait := maxIdle
	for _, e := range k.entries {
		switch {
		case e.isRunning || !isMine(e):
		case e.due.After(now):
			wait = min(wait, e.due.Sub(now))
		case next == nil || compareOrders(e, next) < 0:
			next = e
		}
	}
	if next == nil {
		return nil, wait
	}
	copied := *next
	next.isRunning, next.isForced = true, false
	return &copied, 0
}

// finish writes what a look at an entry found, unless its source changed meanwhile.
func (k *Keeper) finish(looked *entry, found result, isCut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[looked.entryKey]
	if e == nil || e.source != looked.source {
		return // the new entry is due already
	}
	e.isRunning = false
	if isCut {
		return
	}
	e.record, e.seen, e.due, e.problem = found.record, found.seen, found.due, found.problem
	if found.cert != nil {
		e.cert, e.isEarlier = found.cert, false
		k.publish()
	}
	e.isUrgent = e.isUrgent && e.cert == nil && e.problem.reason == ""
	k.log(e, found)
	k.warn(e, time.Now())
	k.obtained.Notify()
}

// log writes what changed to the log: each new certificate, and problems with growing pauses. The
// caller holds the mutex.
func (k *Keeper) log(e *entry, found result) {
	name := string(e.gateway) + " " + e.name
	if found.cert != nil {
		k.opts.Log.Info("a certificate is served", "name", e.name, "gateway", e.gateway, "issuer", e.cert.Leaf.Issuer.CommonName, "not_after", e.cert.Leaf.NotAfter)
	}
	if e.problem.reason == "" || e.isKept {
		k.logged.Forget(name)
	} else if skipped, ok := k.logged.Admit(name, e.problem.reason, time.Now()); ok {
		k.opts.Log.Warn("a certificate is missing or cannot be renewed", "name", e.name, "gateway", e.gateway, "reason", e.problem.reason,
			"hint", e.problem.hint, "next", e.due, "not_logged", skipped)
	}
}
