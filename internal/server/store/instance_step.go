package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SaveInstanceStep writes a step and the engine's reports (nil: it did not
// answer). Reports that differ from the stored ones mark their replicas due.
// failure is the error of the step's action, if any. The runs with replicas on a
// remote machine are due when it goes away, comes back or drains. changed says that a
// report or the status changed. A report that differs only in At is not written, unless
// it says that the attempt is absent and is older than its replica's Since.
func (s *Store) SaveInstanceStep(
	ctx context.Context, l Lease, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep,
	reports []dstack.Report, failure error, now time.Time,
) (changed bool, err error) {
	next := step.Apply(seen, reports != nil, failure, now)
	deleted := next.Status == dstack.InstanceDeleted
	if deleted {
		step.Due = time.Time{}
	}
	var wrote bool // a report was written or deleted
	err = s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		changed, wrote = next.Status != seen.Instance.Status, false
		if changed {
			if err := markDue(ctx, tx, Replicas, now, "instance_id = ?", string(next.ID)); err != nil {
				return err
			}
			if next.Fleet != "" {
				if err := markFleetsDue(ctx, tx, next.ID, now); err != nil {
					return err
				}
			}
		}
		moves := movesReplicas(seen.Instance, next)
		if moves {
			widenChange(ctx)
			err := markDue(ctx, tx, Runs, now, "id IN (SELECT run_id FROM replicas WHERE live AND instance_id = ?)", string(next.ID))
			if err != nil {
				return err
			}
		}
		if reports != nil {
			isNew, isGone, err := saveReports(ctx, tx, l, seen, reports, now)
			if err != nil {
				return err
			}
			changed, wrote = changed || isNew, isNew || isGone
		}
		err := saveRow(ctx, tx, l, seen.Instance.Version, step.Due,
			`status = ?, reason = ?, since = ?, heard_at = ?, last_fail = ?, fails = ?,
			empty_since = ?, unlisted_since = ?, silent_since = ?, checked_at = ?, draining = ?, live = ?`,
			string(next.Status), cleanText(next.Reason), toMicros(next.Since), toMicros(next.LastResponseAt), cleanText(next.LastError), next.ConsecutiveFailures,
			toMicros(next.EmptySince), toMicros(next.UnlistedSince), toMicros(next.SilentSince), toMicros(next.CheckedAt), next.IsDraining, !deleted)
		if err == nil {
			err = saveRental(ctx, tx, seen, next, now)
		}
		if err == nil && deleted {
			err = endAttachments(ctx, tx, next.ID)
		}
		if err == nil && !next.TakenBackAt.Equal(seen.Instance.TakenBackAt) {
			err = putRented(ctx, tx, next)
		}
		if err != nil || !wrote && !moves {
			return err
		}
		return countChange(ctx, tx)
	})
	if err == nil {
		s.placed.advance(next.ID, seen.Instance.Version, wrote)
	}
	return changed && err == nil, err
}

// movesReplicas reports whether a remote machine changed in a way that its runs decide
// on: see lifecycle.RunFacts.Instances.
func movesReplicas(before, next dstack.Instance) bool {
	return next.Offer.IsRemote && (next.Status != before.Status || next.IsDraining != before.IsDraining ||
		next.UnlistedSince.IsZero() != before.UnlistedSince.IsZero() || !next.TakenBackAt.Equal(before.TakenBackAt))
}
