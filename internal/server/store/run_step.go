package store

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SaveRunStep writes a step: the run's row, new replicas (of the present
// revision; status waiting, due now, IDs made here), those that drain, drops
// (status terminating with step.Why, due now, their instance due now), and
// what there is to tell of it. With Back, the earlier revision is the present
// one from here on, and those that came after it and never served have failed.
// Conflict when the run's version is not seen's any more. A step that changes
// nothing is not written: the lease is given back.
func (s *Store) SaveRunStep(ctx context.Context, l Lease, seen lifecycle.RunFacts, step lifecycle.RunStep, now time.Time) error {
	if step.To.IsFinished() {
		step.Due = time.Time{}
		defer s.forgetSpecs(seen.Run.ID)
	}
	events := lifecycle.BuildRunEvents(seen, step, now)
	if len(events)+len(step.Add)+len(step.Terminate)+len(step.Drain) == 0 && step.Rollback == nil && sameRun(seen.Run, nextRun(seen.Run, step, now)) {
		return s.Release(ctx, l, step.Due) // it is looked at each second while it has load
	}
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		run := nextRun(seen.Run, step, now)
		if err := s.saveRun(ctx, tx, l, seen.Run, &run, step, now); err != nil {
			return err
		}
		if run.Status != seen.Run.Status || run.ReadyAt != seen.Run.ReadyAt {
			if err := touch(ctx, tx, Replicas, now, "run_id = ?", string(run.ID)); err != nil {
				return err
			}
		}
		if step.Rollback != nil { // they run by another configuration now
			if err := renewMachines(ctx, tx, run.ID); err != nil {
				return err
			}
		}
		if err := addReplicas(ctx, tx, run, step.Add, now); err != nil {
			return err
		}
		if err := dropReplicas(ctx, tx, run.ID, step, now); err != nil {
			return err
		}
		if err := drainReplicas(ctx, tx, run.ID, step, now); err != nil {
			return err
		}
		return addEvents(ctx, tx, events, now)
	})
}

// sameRun says that a step changes nothing about a run.
func sameRun(a, b dstack.Run) bool {
	return a.Status == b.Status && a.Reason == b.Reason && a.Ending == b.Ending && a.DesiredReplicas == b.DesiredReplicas &&
		a.ReadyAt.Equal(b.ReadyAt) && a.StartedAt.Equal(b.StartedAt)
}

// nextRun is a run after a step, but for a fall back.
func nextRun(run dstack.Run, step lifecycle.RunStep, now time.Time) dstack.Run {
	if step.To != run.Status {
		run.Since = now
	}
	if step.Ready && run.ReadyAt.IsZero() {
		run.ReadyAt = now
	}
	if step.Started && run.StartedAt.IsZero() {
		run.StartedAt = now
	}
	if step.To.IsFinished() {
		run.FinishedAt = now
	}
	run.Status, run.Reason, run.Ending, run.DesiredReplicas = step.To, step.Reason, step.Ending, step.DesiredReplicas
	return run
}

// saveRun writes a run's row, and what becomes of its revisions.
func (s *Store) saveRun(ctx context.Context, tx bun.Tx, l Lease, seen dstack.Run, run *dstack.Run, step lifecycle.RunStep, now time.Time) error {
	var more string
	var args []any
	var err error
	switch {
	case step.Rollback != nil:
		more, args, err = s.fallBack(ctx, tx, run, step.Rollback, now)
	case run.ReadyAt != seen.ReadyAt:
		err = provenNow(ctx, tx, *run)
	}
	if err != nil {
		return err
	}
	if run.DesiredReplicas != seen.DesiredReplicas {
		run.ScaledAt = now
	}
	head := []any{
		string(run.Status), clean(run.Reason), string(run.Ending), micros(run.Since), micros(run.ReadyAt), micros(run.StartedAt),
		run.DesiredReplicas, micros(run.ScaledAt), micros(run.FinishedAt), !run.Status.IsFinished(),
	}
	return saveRow(ctx, tx, l, seen.Version, step.Due, `status = ?, reason = ?, ending = ?, since = ?, ready_at = ?, started_at = ?,
		wanted = ?, scaled_at = ?, finished_at = ?, live = ?`+more, append(head, args...)...)
}

// endedKept is how many finished replicas of a run are remembered: one that
// scales up and down for months has had thousands.
const endedKept = 50

func addReplicas(ctx context.Context, tx bun.Tx, run dstack.Run, nums []int, now time.Time) error {
	if len(nums) > 0 {
		if err := forgetEnded(ctx, tx, run); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(nums, 500) {
		rows := nouns(some, func(num int) replicaRow {
			return replicaRow{
				ID: uuid.NewString(), RunID: string(run.ID), Num: num, Revision: run.Revision, Shape: run.TemplateRevision,
				Status: string(dstack.ReplicaWaiting), Since: micros(now), Claim: "{}", Past: "[]",
				SubmittedAt: micros(now), Version: 1, turn: turn{Live: true, DueAt: due(now)},
			}
		})
		n, err := affected(tx.NewInsert().Model(&rows).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n < int64(len(some)) {
			return conflict("look at it afresh", "cannot add replicas %d to %d of run %s: one of them is there", some[0], some[len(some)-1], run.ID)
		}
	}
	return nil
}

// forgetEnded deletes all but the latest finished replicas of a run. Those of
// the present shape that gave up still count for what is decided.
func forgetEnded(ctx context.Context, tx bun.Tx, run dstack.Run) error {
	_, err := tx.NewRaw(`DELETE FROM replicas WHERE run_id = ? AND NOT live AND NOT (status = ? AND shape = ?)
		AND id NOT IN (SELECT id FROM replicas WHERE run_id = ? AND NOT live ORDER BY finished_at DESC, id LIMIT ?)`,
		string(run.ID), string(dstack.ReplicaFailed), run.TemplateRevision, string(run.ID), endedKept).Exec(ctx)
	return err
}

// drainReplicas takes replicas out of the route table and lets them finish
// what they have begun. One that leaves already is left alone.
func drainReplicas(ctx context.Context, tx bun.Tx, run dstack.RunID, step lifecycle.RunStep, now time.Time) error {
	if len(step.Drain) == 0 {
		return nil
	}
	ids := bun.List(texts(step.Drain))
	draining, terminating := string(dstack.ReplicaDraining), string(dstack.ReplicaTerminating)
	n, err := affected(tx.NewRaw(`UPDATE replicas SET status = ?, reason = ?, since = ?, grace = TRUE, drain_by = ?, drained = 0, backoff_at = 0, version = version + 1
		WHERE live AND run_id = ? AND id IN (?) AND status <> ? AND status <> ?`,
		draining, clean(step.StopReason), micros(now), micros(now.Add(step.DrainTimeout)), string(run), ids, draining, terminating).Exec(ctx))
	if err != nil || n == 0 {
		return err
	}
	if err := touch(ctx, tx, Replicas, now, "run_id = ? AND id IN (?)", string(run), ids); err != nil {
		return err
	}
	if err := touchMachines(ctx, tx, now, "id IN (?)", ids); err != nil {
		return err
	}
	// Who reads this number reads the new status, too: orders have their
	// numbers in the order of commits.
	var order int64
	if err := tx.NewRaw("UPDATE installation SET drains = drains + 1 WHERE one = 1 RETURNING drains").Scan(ctx, &order); err != nil {
		return err
	}
	_, err = tx.NewRaw("UPDATE replicas SET drained = ? WHERE live AND run_id = ? AND status = ? AND drained = 0", order, string(run), draining).Exec(ctx)
	return err
}

func texts[T ~string](ids []T) []string {
	return nouns(ids, func(id T) string { return string(id) })
}

// noneServes refuses to end replicas without draining them that have become
// ready since they were seen.
func noneServes(ctx context.Context, tx bun.Tx, run dstack.RunID, ids []string) error {
	var serving []string
	err := tx.NewRaw("SELECT id FROM replicas WHERE live AND run_id = ? AND id IN (?) AND (status = ? OR status = ?)", string(run), bun.List(ids),
		string(dstack.ReplicaReady), string(dstack.ReplicaUnhealthy)).Scan(ctx, &serving)
	if err == nil && len(serving) > 0 {
		return conflict("look at it afresh", "cannot end replicas of run %s without draining them: they serve by now", run)
	}
	return err
}

// dropReplicas tells replicas to end. One that was told before may only be
// told to hurry; one that has ended stays as it is.
func dropReplicas(ctx context.Context, tx bun.Tx, run dstack.RunID, step lifecycle.RunStep, now time.Time) error {
	if len(step.Terminate) == 0 {
		return nil
	}
	ids := texts(step.Terminate)
	ending := string(dstack.ReplicaTerminating)
	if step.Graceful {
		if err := noneServes(ctx, tx, run, ids); err != nil {
			return err
		}
	}
	_, err := tx.NewRaw(`UPDATE replicas SET status = ?, reason = ?, grace = (CASE WHEN status = ? THEN grace AND ? ELSE ? END),
		since = CASE WHEN status = ? THEN since ELSE ? END, backoff_at = 0, version = version + 1
		WHERE live AND run_id = ? AND id IN (?)`,
		ending, clean(step.StopReason), ending, step.Graceful, step.Graceful, ending, micros(now), string(run), bun.List(ids)).Exec(ctx)
	if err != nil {
		return err
	}
	if err := touch(ctx, tx, Replicas, now, "run_id = ? AND id IN (?)", string(run), bun.List(ids)); err != nil {
		return err
	}
	return touchMachines(ctx, tx, now, "id IN (?)", bun.List(ids))
}

// renewMachines makes old what was seen of the instances that a run's replicas
// are on: it has another configuration. None is due for that.
func renewMachines(ctx context.Context, tx bun.Tx, run dstack.RunID) error {
	_, err := tx.NewRaw(`UPDATE instances SET version = version + 1
		WHERE live AND id IN (SELECT instance_id FROM replicas WHERE live AND run_id = ?)`, string(run)).Exec(ctx)
	return err
}

// touchMachines touches the instances of unfinished replicas.
func touchMachines(ctx context.Context, tx bun.Tx, now time.Time, where string, args ...any) error {
	return touch(ctx, tx, Instances, now, "id IN (SELECT instance_id FROM replicas WHERE live AND "+where+")", args...)
}
