package aws

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// quietTime is how long a region outside of the configuration that has nothing is not asked again.
const quietTime = 10 * time.Minute

// quietRegions are regions outside of the configuration. The zero value is ready.
type quietRegions struct {
	mu    sync.Mutex
	until map[string]time.Time // when a region is asked again; zero: it has something, so it is asked each time
}

// isQuiet reports whether a region need not be asked now.
func (q *quietRegions) isQuiet(region string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return time.Now().Before(q.until[region])
}

// isBusy reports whether a region had something when it was last asked.
func (q *quietRegions) isBusy(region string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	until, wasAsked := q.until[region]
	return wasAsked && until.IsZero()
}

func (q *quietRegions) set(region string, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.until == nil {
		q.until = map[string]time.Time{}
	}
	q.until[region] = until
}

// listEverywhere lists objects in the configured regions, and in the others that are enabled, so that removing a region
// from the configuration does not hide what is there. If a region fails, it returns the objects of the others with the
// error. costs reports whether an object is worth asking its region each time.
func listEverywhere[T any](ctx context.Context, p *Provider, quiet *quietRegions,
	list func(context.Context, string) ([]T, error), costs func(T) bool,
) ([]T, error) {
	configured, disabled, err := p.splitRegions(ctx)
	if err != nil {
		return nil, err
	}
	answers, failures := inRegions(ctx, configured, list)
	others, err := listElsewhere(ctx, p, quiet, configured, disabled, list, costs)
	return slices.Concat(append(answers, others)...), errors.Join(firstFailure(failures), err)
}

// splitRegions returns the configured regions that the account can use, and those that it has not enabled or that do not
// exist. The latter would fail each listing, and so stop what is rented in the others.
func (p *Provider) splitRegions(ctx context.Context) (configured, disabled []string, err error) {
	configured, err = p.ListRegions(ctx)
	if err != nil || len(p.settings.Regions) == 0 {
		return configured, nil, err
	}
	enabled, err := p.listEnabled(ctx)
	if err != nil {
		return configured, nil, nil // each region says what is wrong, or nothing is: the right is not needed otherwise
	}
	for _, region := range configured {
		if !slices.Contains(enabled, region) {
			disabled = append(disabled, region)
		}
	}
	return slices.DeleteFunc(slices.Clone(configured), func(region string) bool { return slices.Contains(disabled, region) }), disabled, nil
}

// listElsewhere lists objects in the regions that the configuration does not name, and in those that it names and that are
// not enabled. A region that fails there and is not
// known to have any does not make the listing incomplete: the account may not use it at all.
func listElsewhere[T any](ctx context.Context, p *Provider, quiet *quietRegions, configured, disabled []string,
	list func(context.Context, string) ([]T, error), costs func(T) bool,
) ([]T, error) {
	if len(p.settings.Regions) == 0 {
		return nil, nil // all that are enabled are configured
	}
	enabled, err := p.listEnabled(ctx)
	if err != nil {
		return nil, ignoreMissingRight(err)
	}
	var regions []string
	for _, region := range slices.Concat(enabled, disabled) {
		if !slices.Contains(configured, region) && !quiet.isQuiet(region) {
			regions = append(regions, region)
		}
	}
	answers, failures := inRegions(ctx, regions, list)
	for i, region := range regions {
		hasSome := slices.ContainsFunc(answers[i], costs)
		switch {
		case failures[i] != nil && quiet.isBusy(region): // the listing is incomplete
		case hasSome:
			quiet.set(region, time.Time{})
		default:
			quiet.set(region, time.Now().Add(quietTime))
			failures[i] = nil
		}
	}
	return slices.Concat(answers...), firstFailure(failures)
}
