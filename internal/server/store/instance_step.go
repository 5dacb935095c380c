package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SaveInstanceStep writes a step and what was heard (nil: the engine did not
// answer); reports that differ make their replicas due. fail is the error of
// the act, if any. It returns whether any report or status changed. When
// nothing but At changed, no row but the lease is written, save that HeardAt
// is refreshed once in 30 s, and that an absent report is refreshed when its
// replica's Since is later than its At.
func (s *Store) SaveInstanceStep(ctx context.Context, l Lease, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep, heard []dstack.Report, fail error, now time.Time) (changed bool, err error) {
	next := step.Apply(seen, heard != nil, fail, now)
	deleted := next.Status == dstack.InstanceDeleted
	if deleted {
		step.Due = time.Time{}
	}
	var wrote bool // something that was reported before is not so any more
	err = s.note(ctx, func(ctx context.Context, tx bun.Tx) error {
		changed, wrote = next.Status != seen.Instance.Status, false
		if changed {
			if err := touch(ctx, tx, Replicas, now, "instance_id = ?", string(next.ID)); err != nil {
				return err
			}
		}
		if heard != nil {
			told, forgot, err := saveReports(ctx, tx, l, seen, heard, now)
			if err != nil {
				return err
			}
			changed, wrote = changed || told, told || forgot
		}
		err := saveRow(ctx, tx, l, seen.Instance.Version, step.Due,
			`status = ?, reason = ?, since = ?, heard_at = ?, last_fail = ?, fails = ?,
			empty_since = ?, unlisted_since = ?, silent_since = ?, checked_at = ?, live = ?`,
			string(next.Status), clean(next.Reason), micros(next.Since), micros(next.LastResponseAt), clean(next.LastError), next.ConsecutiveFailures,
			micros(next.EmptySince), micros(next.UnlistedSince), micros(next.SilentSince), micros(next.CheckedAt), !deleted)
		if err != nil || !wrote {
			return err
		}
		return countChange(ctx, tx)
	})
	if err == nil {
		s.placed.saved(next.ID, seen.Instance.Version, wrote)
	}
	return changed && err == nil, err
}
