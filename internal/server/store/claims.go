package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// attemptRow says whose an attempt is.
type attemptRow struct {
	bun.BaseModel `bun:"table:attempts"`

	AttemptID string
	ReplicaID string
	Num       int
}

// rememberAttempts notes whose new attempts are, and forgets those that are
// too old to be listed.
func rememberAttempts(ctx context.Context, tx bun.Tx, done []steppedReplica) error {
	var rows []attemptRow
	for _, r := range done {
		if r.attempt {
			rows = append(rows, attemptRow{AttemptID: string(r.next.Attempt), ReplicaID: string(r.next.ID), Num: r.next.AttemptNum})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
		return err
	}
	for _, row := range rows {
		if row.Num <= lifecycle.MaxPastAttempts {
			continue
		}
		_, err := tx.NewRaw("DELETE FROM attempts WHERE replica_id = ? AND num < ?", row.ReplicaID, row.Num-lifecycle.MaxPastAttempts).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// claimRow is one thing that only one replica can hold.
type claimRow struct {
	bun.BaseModel `bun:"table:claims"`

	InstanceID string
	Thing      string
	ReplicaID  string
}

// settle brings the claims of replicas in step with their rows.
func (s *Store) settle(ctx context.Context, tx bun.Tx, done []steppedReplica, now time.Time) error {
	var free []string
	rooms := map[dstack.InstanceID]room{}
	var claims []claimRow
	for _, r := range done {
		if r.place != nil || r.next.Status.IsFinished() || r.next.Status == dstack.ReplicaWaiting {
			free = append(free, string(r.next.ID))
		}
		if r.place == nil {
			continue
		}
		id := r.next.Instance
		rooms[id] = room{instance: *r.place, claim: placement.Sum(rooms[id].claim, r.next.Claim, 1)}
		for _, thing := range placement.ExclusiveKeys(r.next.Claim) {
			claims = append(claims, claimRow{InstanceID: string(id), Thing: thing, ReplicaID: string(r.next.ID)})
		}
	}
	if len(free) == 0 {
		return nil
	}
	for _, table := range []string{"claims", "reports"} {
		if _, err := tx.NewRaw("DELETE FROM ? WHERE replica_id IN (?)", bun.Ident(table), bun.List(free)).Exec(ctx); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(rooms)) {
		if err := s.occupy(ctx, tx, rooms[id], now); err != nil {
			return err
		}
	}
	return putClaims(ctx, tx, claims)
}

// room is what new replicas take of one machine together.
type room struct {
	instance dstack.Instance
	claim    dstack.Claim
}

// occupy makes a machine's row if there is none, and checks that it has room.
func (s *Store) occupy(ctx context.Context, tx bun.Tx, r room, now time.Time) error {
	if err := s.putInstance(ctx, tx, r.instance, now); err != nil {
		return err
	}
	return checkFits(ctx, tx, r.instance.ID, r.claim, r.instance.Offer)
}

// putClaims claims things; Conflict when one is taken.
func putClaims(ctx context.Context, tx bun.Tx, claims []claimRow) error {
	if len(claims) == 0 {
		return nil
	}
	n, err := affected(tx.NewInsert().Model(&claims).On("CONFLICT DO NOTHING").Exec(ctx))
	if err == nil && n < int64(len(claims)) {
		return conflict("look at it afresh", "cannot place replica %s: one of %s of instance %s is taken",
			claims[0].ReplicaID, list(nouns(claims, func(c claimRow) string { return c.Thing })), claims[0].InstanceID)
	}
	return err
}

// roomLooks is how many of those that wait for room look when some is made.
const roomLooks = 16

// madeRoom lets those that wait longest look for a place again: what finished
// replicas held is free.
func madeRoom(ctx context.Context, tx bun.Tx, done []steppedReplica, now time.Time) error {
	if !slices.ContainsFunc(done, func(r steppedReplica) bool { return r.next.Status.IsFinished() && r.before.Instance != "" }) {
		return nil
	}
	return touch(ctx, tx, Replicas, now, "id IN (SELECT id FROM replicas WHERE live AND status = ? ORDER BY submitted_at, id LIMIT ?)",
		string(dstack.ReplicaWaiting), roomLooks)
}
