package cloud

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dstack/internal/cloud"
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
	err     error // nil: nothing is wrong
	wasMade bool
}

func (c *accessCheck) set(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.wasMade = err, true
}

// get returns what is wrong with the account; nil: nothing, or it was not checked yet.
func (c *accessCheck) get() (err error, wasMade bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err, c.wasMade
}

// CheckAccess checks the account once, so that Describe knows the result.
func (b *Backend) CheckAccess(ctx context.Context) error {
	err := b.Provider.CheckAccess(ctx)
	if ctx.Err() != nil {
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "it did not answer in time", Hint: "see that this machine reaches the API of the cloud", Cause: err}
	}
	b.access.set(err)
	return err
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
			what := "a cloud cannot be used"
			if len(b.unusableRegions()) > 0 {
				what = "regions of a cloud cannot be used"
			}
			b.Log.Warn(what, "backend", b.Key, "err", err)
		}
		return accessRetry, nil
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

// unusableRegions returns the regions that cannot be used, and why; none: no region, or all.
func (b *Backend) unusableRegions() cloud.RegionErrors {
	err, _ := b.access.get()
	regions, _ := errors.AsType[cloud.RegionErrors](err)
	return regions
}

// usableRegions returns the regions that machines are rented in; empty: all.
func (b *Backend) usableRegions() []string {
	unusable := b.unusableRegions()
	regions := b.Regions
	if len(unusable) == 0 {
		return regions
	}
	if len(regions) == 0 {
		regions = b.Prices.Table().Regions()
	}
	return slices.DeleteFunc(slices.Clone(regions), func(region string) bool { return unusable[region] != nil })
}

// explainNoAccess returns why nothing can be rented in the account; nil: something can, as far as is known. A cloud that does
// not answer now, or problems of some regions, are no reason.
func (b *Backend) explainNoAccess() error {
	err, _ := b.access.get()
	if len(b.unusableRegions()) > 0 {
		return nil
	}
	switch dstack.KindOf(err) {
	case dstack.Unauthorized, dstack.Forbidden, dstack.Invalid, dstack.NoCapacity:
		return err
	default:
		return nil
	}
}
