package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// heardEvery is how often the time of an engine's answer is written when
// nothing else is.
const heardEvery = 30 * time.Second

// SaveInstanceStep writes a step and what was heard (nil: the engine did not
// answer); reports that differ make their replicas due. fail is the error of
// the act, if any. It returns whether any report or status changed. When
// nothing but At changed, no row but the lease is written, save that HeardAt
// is refreshed once in 30 s, and that an absent report is refreshed when its
// replica's Since is later than its At.
func (s *Store) SaveInstanceStep(ctx context.Context, l Lease, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep, heard []dstack.Report, fail error, now time.Time) (changed bool, err error) {
	next := nextInstance(seen.Instance, step, heard != nil, fail, now)
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
			"status = ?, reason = ?, since = ?, heard_at = ?, last_fail = ?, fails = ?, live = ?",
			string(next.Status), clean(next.Reason), micros(next.Since), micros(next.LastResponseAt), clean(next.LastError), next.ConsecutiveFailures, !deleted)
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

// nextInstance is an instance after a step.
func nextInstance(i dstack.Instance, step lifecycle.InstanceStep, answered bool, fail error, now time.Time) dstack.Instance {
	if step.To != i.Status {
		i.Since = now
	}
	i.Status, i.Reason = step.To, step.Reason
	if answered && (i.ConsecutiveFailures > 0 || now.Sub(i.LastResponseAt) >= heardEvery) {
		i.LastResponseAt = now
	}
	if fail == nil {
		i.ConsecutiveFailures, i.LastError = 0, ""
	} else {
		i.ConsecutiveFailures, i.LastError = i.ConsecutiveFailures+1, fail.Error()
	}
	return i
}
