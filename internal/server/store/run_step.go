package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SaveRunStep writes a step: the run's row, new replicas (status waiting, due
// now, IDs made here), drops (status terminating with step.Why, due now, their
// instance due now). Conflict when the run's version is not seen's any more.
func (s *Store) SaveRunStep(ctx context.Context, l Lease, seen lifecycle.RunFacts, step lifecycle.RunStep, now time.Time) error {
	run := seen.Run
	since, readyAt, finishedAt := run.Since, run.ReadyAt, run.FinishedAt
	if step.To != run.Status {
		since = now
	}
	if step.Ready && readyAt.IsZero() {
		readyAt = now
	}
	finished := step.To.Finished()
	if finished {
		finishedAt, step.Due = now, time.Time{}
	}
	if finished {
		defer s.forgetSpec(run.ID)
	}
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		err := saveRow(ctx, tx, l, run.Version, step.Due,
			"status = ?, reason = ?, ending = ?, since = ?, ready_at = ?, finished_at = ?, live = ?",
			string(step.To), clean(step.Reason), string(step.Ending), micros(since), micros(readyAt), micros(finishedAt), !finished)
		if err != nil {
			return err
		}
		if step.To != run.Status || readyAt != run.ReadyAt {
			if err := touch(ctx, tx, Replicas, now, "run_id = ?", string(run.ID)); err != nil {
				return err
			}
		}
		if err := addReplicas(ctx, tx, run, step.Add, now); err != nil {
			return err
		}
		return dropReplicas(ctx, tx, run.ID, step, now)
	})
}

func addReplicas(ctx context.Context, tx bun.Tx, run dstack.Run, nums []int, now time.Time) error {
	for _, num := range nums {
		row := replicaRow{
			ID: uuid.NewString(), RunID: string(run.ID), Num: num, Revision: run.Revision,
			Status: string(dstack.ReplicaWaiting), Since: micros(now), Claim: "{}", Past: "[]",
			SubmittedAt: micros(now), Version: 1, turn: turn{Live: true, DueAt: due(now)},
		}
		n, err := affected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return conflict("look at it afresh", "cannot add replica %d of run %s: there is one", num, run.ID)
		}
	}
	return nil
}

// dropReplicas tells replicas to end. One that was told before may only be
// told to hurry; one that has ended stays as it is.
func dropReplicas(ctx context.Context, tx bun.Tx, run dstack.RunID, step lifecycle.RunStep, now time.Time) error {
	if len(step.Drop) == 0 {
		return nil
	}
	ids := make([]string, len(step.Drop))
	for i, id := range step.Drop {
		ids[i] = string(id)
	}
	ending := string(dstack.ReplicaTerminating)
	_, err := tx.NewRaw(`UPDATE replicas SET status = ?, reason = ?, grace = (CASE WHEN status = ? THEN grace AND ? ELSE ? END),
		since = CASE WHEN status = ? THEN since ELSE ? END, backoff_at = 0, version = version + 1
		WHERE live AND run_id = ? AND id IN (?)`,
		ending, clean(step.Why), ending, step.Grace, step.Grace, ending, micros(now), string(run), bun.List(ids)).Exec(ctx)
	if err != nil {
		return err
	}
	if err := touch(ctx, tx, Replicas, now, "run_id = ? AND id IN (?)", string(run), bun.List(ids)); err != nil {
		return err
	}
	return touch(ctx, tx, Instances, now, "id IN (SELECT instance_id FROM replicas WHERE live AND id IN (?))", bun.List(ids))
}
