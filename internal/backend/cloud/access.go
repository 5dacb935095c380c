package cloud

import (
	"context"
	"errors"
	"sync"
	"time"

	"dstack/internal/dstack"
)

const (
	accessTimeout  = 30 * time.Second
	accessInterval = 10 * time.Minute
	accessRetry    = 30 * time.Second // while something is wrong: the user may be mending it
)

// accessCheck is the latest check of an account.
type accessCheck struct {
	mu      sync.Mutex
	err     error // why the account cannot be used; nil: it can
	note    error // what is wrong with some of its regions
	wasMade bool
}

func (c *accessCheck) set(err, note error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.note, c.wasMade = err, note, true
}

// getNote returns what is wrong with some regions of an account that can be used; nil: nothing.
func (c *accessCheck) getNote() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.note
}

// get returns what is wrong with the account; nil: nothing, or it was not checked yet.
func (c *accessCheck) get() (err error, wasMade bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err, c.wasMade
}

// CheckAccess checks the account once, so that Describe knows the result. It returns why the account cannot be used: what is
// wrong with some of its regions is a note.
func (b *Backend) CheckAccess(ctx context.Context) error {
	err := b.Provider.CheckAccess(ctx)
	if ctx.Err() != nil {
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "it did not answer in time", Hint: "see that this machine reaches the API of the cloud", Cause: err}
	}
	var note error
	if isOfRegions(err) {
		err, note = nil, err
	}
	b.access.set(err, note)
	return err
}

// isOfRegions reports whether an error concerns regions, and not the whole account.
func isOfRegions(err error) bool {
	failure, ok := errors.AsType[*dstack.MachineFailure](err)
	return ok && failure.Scope == dstack.ScopePlace
}

// repeatAccessCheck checks the account again and again.
func (b *Backend) repeatAccessCheck(ctx context.Context) (time.Duration, error) {
	checking, cancel := context.WithTimeout(ctx, accessTimeout)
	defer cancel()
	before, wasMade := b.access.get()
	err := b.CheckAccess(checking)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		if _, ok := b.failures.Admit("access", err.Error(), time.Now()); ok {
			b.Log.Warn("a cloud cannot be used", "backend", b.Key, "err", err)
		}
		return accessRetry, nil
	}
	if note := b.access.getNote(); note == nil {
		b.failures.Forget("regions")
	} else if _, ok := b.failures.Admit("regions", note.Error(), time.Now()); ok {
		b.Log.Warn("a region of a cloud cannot be used", "backend", b.Key, "err", note)
	}
	if wasMade && before != nil {
		b.failures.Forget("access")
		b.Log.Info("a cloud can be used again", "backend", b.Key)
	}
	return accessInterval, nil
}

// IsUsable reports whether the latest check found nothing wrong.
func (b *Backend) IsUsable() bool {
	err, wasMade := b.access.get()
	return wasMade && err == nil
}

// explainNoAccess returns why nothing can be rented in the account; nil: something can, as far as is known. A cloud that does
// not answer now, or a problem of one region, is no reason.
func (b *Backend) explainNoAccess() error {
	err, _ := b.access.get()
	switch dstack.KindOf(err) {
	case dstack.Unauthorized, dstack.Forbidden, dstack.Invalid:
		return err
	case dstack.NoCapacity: // no region has a network, or an image
		if failure, ok := errors.AsType[*dstack.MachineFailure](err); ok && failure.Scope == dstack.ScopeBackend {
			return err
		}
	default:
	}
	return nil
}
