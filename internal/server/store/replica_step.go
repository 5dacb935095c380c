package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// newIDs makes the IDs that a step gives.
func newIDs(step lifecycle.ReplicaStep) (ids lifecycle.NewIDs) {
	if step.NeedsInstanceID() {
		ids.Instance = dstack.InstanceID(uuid.NewString())
	}
	if step.NewAttempt {
		ids.Attempt = dstack.AttemptID(uuid.NewString())
	}
	return ids
}

func orEmpty(past []dstack.Attempt) []dstack.Attempt {
	if past == nil {
		return []dstack.Attempt{}
	}
	return past
}

// putInstance inserts the row of an instance, or updates the offer of an existing
// row. On PostgreSQL it locks the row, so that placements on one machine are
// checked one after the other.
func (s *Store) putInstance(ctx context.Context, tx bun.Tx, i dstack.Instance, now time.Time) error {
	if i.Offer.IsIdle {
		return takeIdle(ctx, tx, i.ID, now)
	}
	offer, err := json.Marshal(i.Offer)
	if err != nil {
		return fmt.Errorf("write the offer of instance %s: %w", i.ID, err)
	}
	row := instanceRow{
		ID: string(i.ID), Backend: i.Backend, Offer: string(offer), Status: string(i.Status), Since: toMicros(i.Since), Host: i.Host,
		IsDraining: i.IsDraining, IdleTime: idleMicros(i.IdleTime), Version: 1, schedule: schedule{Live: true, DueAt: dueMicros(now)},
	}
	n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
	if err == nil && n == 1 && i.Offer.OwnedInstance == "" {
		if err := putRented(ctx, tx, i); err != nil {
			return err
		}
		return s.startRental(ctx, tx, i, now)
	}
	if err != nil || n == 1 {
		return err
	}
	n, err = rowsAffected(tx.NewRaw("UPDATE instances SET backend = ?, offer = ?, host = ?, draining = ? WHERE id = ? AND live",
		row.Backend, row.Offer, row.Host, row.IsDraining, row.ID).Exec(ctx))
	if err == nil && n == 0 && i.Offer.OwnedInstance != "" { // retired, and offered again
		n, err = rowsAffected(tx.NewRaw(`UPDATE instances SET backend = ?, offer = ?, host = ?, draining = ?, status = ?, reason = '', since = ?,
			unlisted_since = 0, silent_since = 0, fails = 0, version = version + 1, live = ?, due_at = ? WHERE id = ?`,
			row.Backend, row.Offer, row.Host, row.IsDraining, row.Status, row.Since, true, row.DueAt, row.ID).Exec(ctx))
	}
	if err == nil && n == 0 {
		return conflict(retryHint, "cannot place anything on instance %s: it is deleted", i.ID)
	}
	return err
}

// idleMicros returns an idle time in microseconds; -1: no limit.
func idleMicros(idle time.Duration) int64 {
	if idle < 0 {
		return -1 // less than a microsecond below 0 would be 0, and the machine deleted at once
	}
	return idle.Microseconds()
}

// checkFits refuses placements that together exceed a machine: they may have
// been decided on the same facts. claim is what the new replicas hold of it;
// their rows are written already.
func checkFits(ctx context.Context, tx bun.Tx, id dstack.InstanceID, claim dstack.Claim, o dstack.Offer) error {
	if o.OwnedInstance == "" || (claim.CPUs == 0 && claim.MemoryMiB == 0 && claim.DiskMiB == 0) {
		return nil
	}
	var rows []struct {
		Claim string
		Times int
	}
	err := tx.NewRaw("SELECT claim, COUNT(*) AS times FROM replicas WHERE live AND instance_id = ? GROUP BY claim", string(id)).Scan(ctx, &rows)
	if err != nil {
		return err
	}
	var total dstack.Claim
	for _, row := range rows {
		var c dstack.Claim
		if err := json.Unmarshal([]byte(row.Claim), &c); err != nil {
			return fmt.Errorf("read what a replica on instance %s holds: %w", id, err)
		}
		total = placement.Sum(total, c, row.Times)
	}
	if short := placement.Exceeded(o, total, claim); len(short) > 0 {
		return conflict(retryHint, "cannot place a replica: instance %s does not have enough %s left",
			id, strings.Join(short, ", "))
	}
	return nil
}
