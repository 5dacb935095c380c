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
	"dstack/internal/dstack"
)

// SaveReplicaStep writes a step: the replica's row and claims, and what there
// is to tell of it; its run and instance become due when status or attempt
// changed, the run also when Blocked did. With a Place it makes
// the instance row when there is none. Conflict when the replica's version is
// not seen's any more, or what it claims is taken. What a finished replica
// held is free, and so is what one held that waits for a place again.
func (s *Store) SaveReplicaStep(ctx context.Context, l Lease, seen lifecycle.ReplicaFacts, step lifecycle.ReplicaStep, now time.Time) error {
	next := nextReplica(seen.Replica, step, now)
	claim, err := json.Marshal(next.Claim)
	if err != nil {
		return fmt.Errorf("write what replica %s holds: %w", next.ID, err)
	}
	past, err := json.Marshal(orNone(next.Past))
	if err != nil {
		return fmt.Errorf("write the attempts of replica %s: %w", next.ID, err)
	}
	if next.Status.Finished() {
		step.Due = time.Time{}
	}
	changed := next.Status != seen.Replica.Status || step.Attempt
	events := lifecycle.ReplicaEvents(seen, step, now)
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		if changed || next.Blocked != seen.Replica.Blocked {
			if err := touch(ctx, tx, Runs, now, "id = ?", string(next.Run)); err != nil {
				return err
			}
		}
		err := saveRow(ctx, tx, l, seen.Replica.Version, step.Due,
			`status = ?, reason = ?, since = ?, instance_id = ?, claim = ?, attempt_id = ?, attempt_num = ?, attempt_at = ?,
			crashes = ?, crashed_at = ?, backoff_at = ?, ready_at = ?, blocked = ?, past = ?, finished_at = ?, live = ?`,
			string(next.Status), clean(next.Reason), micros(next.Since), string(next.Instance), string(claim),
			string(next.Attempt), next.AttemptNum, micros(next.AttemptAt),
			next.Crashes, micros(next.CrashedAt), micros(next.DueAt), micros(next.ReadyAt), next.Blocked, string(past), micros(next.FinishedAt), !next.Status.Finished())
		if err != nil {
			return err
		}
		if step.Attempt {
			if err := rememberAttempt(ctx, tx, next); err != nil {
				return err
			}
		}
		if changed {
			places := []string{string(seen.Replica.Instance), string(next.Instance)}
			if err := touch(ctx, tx, Instances, now, "id IN (?)", bun.List(places)); err != nil {
				return err
			}
		}
		if err := s.settle(ctx, tx, next, step.Place, now); err != nil {
			return err
		}
		return addEvents(ctx, tx, events, now)
	})
}

// nextReplica is a replica after a step.
func nextReplica(r dstack.Replica, step lifecycle.ReplicaStep, now time.Time) dstack.Replica {
	if step.To != r.Status {
		r.Since = now
		if step.To == dstack.ReplicaReady {
			r.ReadyAt = now
		}
	}
	if step.To == dstack.ReplicaWaiting {
		r.Instance, r.Claim = "", dstack.Claim{}
	}
	r.Status, r.Reason, r.Blocked = step.To, step.Reason, step.Blocked
	r.Crashes, r.CrashedAt, r.DueAt = step.Crashes, step.Crashed, step.DueAt
	if step.Place != nil {
		r.Claim = step.Place.Claim
		if r.Instance = step.Place.Offer.Owned; r.Instance == "" {
			r.Instance = dstack.InstanceID(uuid.NewString())
		}
	}
	if step.Past != nil {
		past := append(r.Past[:len(r.Past):len(r.Past)], *step.Past)
		r.Past = past[max(0, len(past)-pastKept):]
	}
	if step.Attempt {
		if r.Attempt != "" {
			r.AttemptNum++
		}
		r.Attempt, r.AttemptAt = dstack.AttemptID(uuid.NewString()), now
	}
	if step.To.Finished() {
		r.FinishedAt = now
	}
	return r
}

func orNone(past []dstack.Attempt) []dstack.Attempt {
	if past == nil {
		return []dstack.Attempt{}
	}
	return past
}

// rememberAttempt notes whose a new attempt is, and forgets those that are
// too old to be listed.
func rememberAttempt(ctx context.Context, tx bun.Tx, r dstack.Replica) error {
	_, err := tx.NewRaw("INSERT INTO attempts (attempt_id, replica_id, num) VALUES (?, ?, ?)",
		string(r.Attempt), string(r.ID), r.AttemptNum).Exec(ctx)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw("DELETE FROM attempts WHERE replica_id = ? AND num < ?", string(r.ID), r.AttemptNum-pastKept).Exec(ctx)
	return err
}

// settle brings the claims of a replica in step with its row.
func (s *Store) settle(ctx context.Context, tx bun.Tx, r dstack.Replica, place *dstack.Place, now time.Time) error {
	if place == nil && !r.Status.Finished() && r.Status != dstack.ReplicaWaiting {
		return nil
	}
	for _, table := range []string{"claims", "reports"} {
		if _, err := tx.NewRaw("DELETE FROM ? WHERE replica_id = ?", bun.Ident(table), string(r.ID)).Exec(ctx); err != nil {
			return err
		}
	}
	if place == nil {
		return madeRoom(ctx, tx, r, now)
	}
	if err := s.putInstance(ctx, tx, r.Instance, place.Offer, now); err != nil {
		return err
	}
	if err := fits(ctx, tx, r, place.Offer); err != nil {
		return err
	}
	for _, thing := range things(r.Claim) {
		n, err := affected(tx.NewRaw("INSERT INTO claims (instance_id, thing, replica_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
			string(r.Instance), thing, string(r.ID)).Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return conflict("look at it afresh", "cannot place replica %s: %s of instance %s is taken", r.ID, thing, r.Instance)
		}
	}
	return nil
}

// roomLooks is how many of those that wait for room look when some is made.
const roomLooks = 16

// madeRoom lets those that wait longest look for a place again: what a
// finished replica held is free.
func madeRoom(ctx context.Context, tx bun.Tx, r dstack.Replica, now time.Time) error {
	if !r.Status.Finished() || r.Instance == "" {
		return nil
	}
	return touch(ctx, tx, Replicas, now, "id IN (SELECT id FROM replicas WHERE live AND status = ? ORDER BY submitted_at, id LIMIT ?)",
		string(dstack.ReplicaWaiting), roomLooks)
}

// things names all that only one replica can hold.
func things(c dstack.Claim) (names []string) {
	for _, g := range c.GPUs {
		names = append(names, "gpu:"+g.ID)
	}
	for _, p := range c.Ports {
		names = append(names, fmt.Sprintf("port:%d", p))
	}
	return names
}

// putInstance makes the row of an instance, or refreshes what is known of one
// that exists. On PostgreSQL it holds the row, so that placements on one
// machine are checked one after the other.
func (s *Store) putInstance(ctx context.Context, tx bun.Tx, id dstack.InstanceID, o dstack.Offer, now time.Time) error {
	offer, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("write the offer of instance %s: %w", id, err)
	}
	row := instanceRow{
		ID: string(id), Backend: o.Key, Offer: string(offer), Status: string(dstack.InstanceCreating),
		Since: micros(now), Host: o.Host, Version: 1, turn: turn{Live: true, DueAt: due(now)},
	}
	n, err := affected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
	if err != nil || n == 1 {
		return err
	}
	n, err = affected(tx.NewRaw("UPDATE instances SET backend = ?, offer = ?, host = ? WHERE id = ? AND live",
		row.Backend, row.Offer, row.Host, row.ID).Exec(ctx))
	if err == nil && n == 0 {
		return conflict("look at it afresh", "cannot place anything on instance %s: it is deleted", id)
	}
	return err
}

// fits checks what replicas hold of a machine together: two placements may
// have been decided on the same facts.
func fits(ctx context.Context, tx bun.Tx, r dstack.Replica, o dstack.Offer) error {
	if o.Owned == "" || (r.Claim.CPUs == 0 && r.Claim.MemoryMiB == 0 && r.Claim.DiskMiB == 0) {
		return nil
	}
	placed, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) { q.Where("r.live AND r.instance_id = ?", string(r.Instance)) })
	if err != nil {
		return err
	}
	var sum dstack.Claim // r is among them by now
	for _, p := range placed {
		sum.CPUs += p.Claim.CPUs
		sum.MemoryMiB += p.Claim.MemoryMiB
		sum.DiskMiB += p.Claim.DiskMiB
	}
	var short []string
	if r.Claim.CPUs > 0 && sum.CPUs > o.Hardware.CPUs {
		short = append(short, "CPUs")
	}
	if r.Claim.MemoryMiB > 0 && sum.MemoryMiB > o.Hardware.MemoryMiB {
		short = append(short, "memory")
	}
	if r.Claim.DiskMiB > 0 && sum.DiskMiB > o.Hardware.DiskMiB {
		short = append(short, "disk")
	}
	if len(short) > 0 {
		return conflict("look at it afresh", "cannot place replica %s: instance %s has not enough %s left", r.ID, r.Instance, strings.Join(short, ", "))
	}
	return nil
}
