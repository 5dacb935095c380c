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

// attemptRow is an attempt and the replica that it belongs to.
type attemptRow struct {
	bun.BaseModel `bun:"table:attempts"`

	AttemptID string
	ReplicaID string
	Num       int
}

// rememberAttempts inserts new attempts, and deletes attempts that are too old
// to be listed.
func rememberAttempts(ctx context.Context, tx bun.Tx, done []steppedReplica) error {
	var rows []attemptRow
	for _, r := range done {
		if r.isNewAttempt {
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

// claimRow is a GPU or a port of an instance that one replica holds.
type claimRow struct {
	bun.BaseModel `bun:"table:claims"`

	InstanceID string
	Key        string `bun:"thing"`
	ReplicaID  string
}

// syncClaims updates the table of claims to match the rows of replicas.
func (s *Store) syncClaims(ctx context.Context, tx bun.Tx, done []steppedReplica, now time.Time) error {
	var free []string
	claimed := map[dstack.InstanceID]newClaims{}
	var claims []claimRow
	for _, r := range done {
		if r.instance != nil || r.next.Status.IsFinished() || r.next.Status == dstack.ReplicaWaiting {
			free = append(free, string(r.next.ID))
		}
		if r.instance == nil {
			continue
		}
		id := r.next.Instance
		claimed[id] = newClaims{instance: *r.instance, project: r.project, claim: placement.Sum(claimed[id].claim, r.next.Claim, 1)}
		for _, key := range placement.ExclusiveKeys(r.next.Claim) {
			claims = append(claims, claimRow{InstanceID: string(id), Key: key, ReplicaID: string(r.next.ID)})
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
	for _, id := range slices.Sorted(maps.Keys(claimed)) {
		if err := s.placeOn(ctx, tx, claimed[id], now); err != nil {
			return err
		}
	}
	return putClaims(ctx, tx, claims)
}

// newClaims is what new replicas claim of one instance together.
type newClaims struct {
	instance dstack.Instance
	claim    dstack.Claim
	project  dstack.ProjectID // of the replicas
}

// placeOn creates an instance's row if there is none, and fails with Conflict when
// the new claims exceed the instance.
func (s *Store) placeOn(ctx context.Context, tx bun.Tx, r newClaims, now time.Time) error {
	if err := s.putInstance(ctx, tx, r.instance, now); err != nil {
		return err
	}
	if err := s.joinFleet(ctx, tx, r.instance, r.project, now); err != nil {
		return err
	}
	return checkFits(ctx, tx, r.instance.ID, r.claim, r.instance.Offer)
}

// putClaims inserts claims. It fails with Conflict when one is taken.
func putClaims(ctx context.Context, tx bun.Tx, claims []claimRow) error {
	if len(claims) == 0 {
		return nil
	}
	n, err := rowsAffected(tx.NewInsert().Model(&claims).On("CONFLICT DO NOTHING").Exec(ctx))
	if err == nil && n < int64(len(claims)) {
		return conflict(retryHint, "cannot place replica %s: one of %s of instance %s is taken",
			claims[0].ReplicaID, joinNames(mapRows(claims, func(c claimRow) string { return c.Key })), claims[0].InstanceID)
	}
	return err
}

// maxWakeWaiting is how many waiting replicas become due when a place is freed.
const maxWakeWaiting = 16

// wakeWaiting marks the replicas that have waited longest due when a finished
// replica has freed its place.
func wakeWaiting(ctx context.Context, tx bun.Tx, done []steppedReplica, now time.Time) error {
	if !slices.ContainsFunc(done, func(r steppedReplica) bool { return r.next.Status.IsFinished() && r.before.Instance != "" }) {
		return nil
	}
	return markDue(ctx, tx, Replicas, now, "id IN (SELECT id FROM replicas WHERE live AND status = ? ORDER BY submitted_at, id LIMIT ?)",
		string(dstack.ReplicaWaiting), maxWakeWaiting)
}
