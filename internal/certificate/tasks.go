package certificate

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Tasks returns what keeps the certificates: it runs until its context ends.
func (k *Keeper) Tasks() []loop.Task {
	return []loop.Task{loop.Repeat("certificates of files and of the own authority", k.changed, k.refreshLocal)}
}

// refreshLocal looks at the certificates that need no ACME server.
func (k *Keeper) refreshLocal(ctx context.Context) (time.Duration, error) {
	for {
		now := time.Now()
		e, wait := k.nextDue(now, func(e *entry) bool { return e.source.Type != typeACME })
		if e == nil {
			return wait, nil
		}
		var cert *tls.Certificate
		var err error
		due, seen := now.Add(fileInterval), e.seen
		if e.source.Type == typeFiles {
			certFile, keyFile := filesOf(e.source)
			cert, seen, err = loadFiles(certFile, keyFile, e.domain, e.seen, now)
		} else {
			cert, due, err = k.issueInternal(ctx, *e)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		k.save(e, cert, seen, due, err)
	}
}

// issueInternal obtains a certificate from the installation's own authority.
func (k *Keeper) issueInternal(ctx context.Context, e entry) (*tls.Certificate, time.Time, error) {
	now := time.Now()
	authority, err := openIntermediate(ctx, k.opts.Storage, e.domain)
	if err != nil {
		return nil, now.Add(10 * time.Second), err
	}
	cert, err := authority.issue([]string{e.name}, leafLifetime)
	return cert, now.Add(leafLifetime * 2 / 3), err
}

// nextDue returns a copy of the entry that is due for the longest time, or how long to wait
// for the next one.
func (k *Keeper) nextDue(now time.Time, isWanted func(*entry) bool) (*entry, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var next *entry
	for _, e := range k.entries {
		if isWanted(e) && (next == nil || e.due.Before(next.due)) {
			next = e
		}
	}
	switch {
	case next == nil:
		return nil, time.Hour
	case next.due.After(now):
		return nil, next.due.Sub(now)
	}
	copied := *next
	return &copied, 0
}

// save writes the result of a look at an entry, unless its source changed meanwhile.
func (k *Keeper) save(looked *entry, cert *tls.Certificate, seen string, due time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[looked.entryKey]
	if e == nil || e.source != looked.source {
		return
	}
	e.seen, e.due, e.reason, e.hint = seen, due, "", ""
	if cert != nil {
		e.cert = cert
		k.publish()
	}
	if err != nil {
		e.reason = err.Error()
		if known, ok := errors.AsType[*dstack.Error](err); ok {
			e.hint = known.Hint
		}
	}
}
