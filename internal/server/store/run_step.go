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

// SaveRunStep writes a decided step in one transaction: the run's row, the new
// replicas (their IDs are made here; they are due now), the replicas that drain
// or terminate (due now, and so are their instances), and the step's events.
// After a rollback, the revisions above the target that never served have
// failed. It fails with Conflict if the run's version is no longer the one in
// seen, or a replica would have to drain first. A step that changes nothing only
// gives the lease back.
func (s *Store) SaveRunStep(ctx context.Context, l Lease, seen lifecycle.RunFacts, step lifecycle.RunStep, now time.Time) error {
	if step.To.IsFinished() {
		step.Due = time.Time{}
		defer s.forgetSpecs(seen.Run.ID)
	}
	events := lifecycle.BuildRunEvents(seen, step, now)
	if len(events)+len(step.Add)+len(step.Terminate)+len(step.Drain) == 0 && !step.ChangesRun(seen.Run) {
		return s.Release(ctx, l, step.Due) // frequent: a run with load is looked at each second
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		limitChange(ctx, string(seen.Run.ID))
		run, err := s.saveRun(ctx, tx, l, seen.Run, step, now)
		if err != nil {
			return err
		}
		if run.Status != seen.Run.Status || run.ReadyAt != seen.Run.ReadyAt {
			if err := markDue(ctx, tx, Replicas, now, "run_id = ?", string(run.ID)); err != nil {
				return err
			}
		}
		if step.Rollback != nil { // its instances' facts hold another configuration
			if err := bumpInstances(ctx, tx, run.ID); err != nil {
				return err
			}
		}
		if err := addReplicas(ctx, tx, run, step.Add, now); err != nil {
			return err
		}
		if err := terminateReplicas(ctx, tx, run.ID, step, now); err != nil {
			return err
		}
		if err := drainReplicas(ctx, tx, run.ID, step, now); err != nil {
			return err
		}
		return addEvents(ctx, tx, events, now)
	})
}

// saveRun writes a run's row after a step, and what becomes of its revisions.
func (s *Store) saveRun(ctx context.Context, tx bun.Tx, l Lease, seen dstack.Run, step lifecycle.RunStep, now time.Time) (dstack.Run, error) {
	var target rollbackTarget
	var err error
	if step.Rollback != nil {
		if target, err = s.findRollbackTarget(ctx, tx, seen.ID, step.Rollback.ToRevision); err != nil {
			return seen, err
		}
	}
	run := step.Apply(seen, target.revision, now)
	counts, err := writeGroupCounts(run.Groups)
	if err != nil {
		return run, err
	}
	set := `status = ?, reason = ?, ending = ?, since = ?, ready_at = ?, started_at = ?,
		wanted = ?, group_counts = ?, scaled_at = ?, finished_at = ?, live = ?, proven = ?`
	args := []any{
		string(run.Status), cleanText(run.Reason), string(run.Ending), toMicros(run.Since), toMicros(run.ReadyAt), toMicros(run.StartedAt),
		run.DesiredReplicas, counts, toMicros(run.ScaledAt), toMicros(run.FinishedAt), !run.Status.IsFinished(), run.StableRevision,
	}
	switch {
	case step.Rollback != nil:
		set += ", spec = ?, username = ?, revision = ?, shape = ?, " + setPublic
		args = append(append(args, target.sealedSpec, run.User, run.Revision, run.TemplateRevision), target.open.args()...)
		if err = markFailed(ctx, tx, run, *step.Rollback); err == nil {
			err = keepReplicas(ctx, tx, run, step.KeptGroups(seen, target.revision), seen.TemplateRevision)
		}
	case run.ReadyAt != seen.ReadyAt:
		err = markReady(ctx, tx, run.ID, run.Revision)
	}
	if err != nil {
		return run, err
	}
	// A revision that can be returned to has served, also if it began to only
	// after a newer one was applied.
	if served := max(step.StableRevision, target.revision.Num); served > 0 {
		if err := markReady(ctx, tx, run.ID, served); err != nil {
			return run, err
		}
	}
	return run, saveRow(ctx, tx, l, seen.Version, step.Due, set, args...)
}

// maxEndedReplicas is how many finished replicas of a run are kept: a run that
// scales up and down for months has had thousands.
const maxEndedReplicas = 50

// keepReplicas moves the replicas of groups that a new template of a run does not change from the
// template before to it: lifecycle.KeepReplica for all of them in one statement. The caller
// raises the versions of their instances.
func keepReplicas(ctx context.Context, tx bun.Tx, run dstack.Run, groups []string, from int) error {
	if len(groups) == 0 || from == run.TemplateRevision {
		return nil
	}
	_, err := tx.NewRaw(`UPDATE replicas SET shape = ?, revision = ?, version = version + 1
		WHERE live AND run_id = ? AND shape = ? AND replica_group IN (?) AND NOT EXISTS (
			SELECT 1 FROM replicas AS other WHERE other.live AND other.run_id = ? AND other.shape = ? AND other.num = replicas.num)`,
		run.TemplateRevision, run.Revision, string(run.ID), from, bun.List(groups), string(run.ID), run.TemplateRevision).Exec(ctx)
	return err
}

func addReplicas(ctx context.Context, tx bun.Tx, run dstack.Run, nums []lifecycle.NewNum, now time.Time) error {
	if len(nums) > 0 {
		if err := forgetEnded(ctx, tx, run); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(nums, 500) {
		rows := mapRows(some, func(num lifecycle.NewNum) replicaRow {
			return newReplicaRow(lifecycle.NewReplica(run, dstack.ReplicaID(uuid.NewString()), num, now), now)
		})
		n, err := rowsAffected(tx.NewInsert().Model(&rows).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n < int64(len(some)) {
			return conflict(retryHint, "cannot add replicas %d to %d of run %s: one of them already exists",
				some[0].Num, some[len(some)-1].Num, run.ID)
		}
	}
	return nil
}

// newReplicaRow returns the row of a replica that has no place yet, due now.
func newReplicaRow(r dstack.Replica, now time.Time) replicaRow {
	return replicaRow{
		ID: string(r.ID), RunID: string(r.Run), Num: r.Num, Group: r.Group, Revision: r.Revision, TemplateRevision: r.TemplateRevision,
		Status: string(r.Status), Since: toMicros(r.Since), Claim: "{}", PastAttempts: "[]",
		SubmittedAt: toMicros(r.SubmittedAt), Version: 1, schedule: schedule{Live: true, DueAt: dueMicros(now)},
	}
}

// forgetEnded deletes all but the latest finished replicas of a run. It keeps
// failed replicas of the present template, because decisions count them.
func forgetEnded(ctx context.Context, tx bun.Tx, run dstack.Run) error {
	_, err := tx.NewRaw(`DELETE FROM replicas WHERE run_id = ? AND NOT live AND NOT (status = ? AND shape = ?)
		AND id NOT IN (SELECT id FROM replicas WHERE run_id = ? AND NOT live ORDER BY finished_at DESC, id LIMIT ?)`,
		string(run.ID), string(dstack.ReplicaFailed), run.TemplateRevision, string(run.ID), maxEndedReplicas).Exec(ctx)
	return err
}

// drainReplicas does step.DrainReplica for all of step.Drain in one statement.
func drainReplicas(ctx context.Context, tx bun.Tx, run dstack.RunID, step lifecycle.RunStep, now time.Time) error {
	if len(step.Drain) == 0 {
		return nil
	}
	ids := bun.List(toStrings(step.Drain))
	to := step.DrainReplica(dstack.Replica{}, now)
	n, err := rowsAffected(tx.NewRaw(`UPDATE replicas SET status = ?, reason = ?, since = ?, grace = ?, drain_by = ?, backoff_at = ?, drained = 0, version = version + 1
		WHERE live AND run_id = ? AND id IN (?) AND status NOT IN (?, ?)`,
		string(to.Status), cleanText(to.Reason), toMicros(to.Since), to.Graceful, toMicros(to.DrainDeadline), toMicros(to.RetryAt),
		string(run), ids, string(dstack.ReplicaDraining), string(dstack.ReplicaTerminating)).Exec(ctx))
	if err != nil || n == 0 {
		return err
	}
	if err := markDue(ctx, tx, Replicas, now, "run_id = ? AND id IN (?)", string(run), ids); err != nil {
		return err
	}
	if err := markInstancesDue(ctx, tx, now, "id IN (?)", ids); err != nil {
		return err
	}
	return numberDrains(ctx, tx, toStrings(step.Drain))
}

// numberDrains gives replicas that have begun to drain the next sequence number. Readers that see
// it also see the new status, because numbers follow commit order.
func numberDrains(ctx context.Context, tx bun.Tx, ids []string) error {
	var order int64
	if err := tx.NewRaw("UPDATE installation SET drains = drains + 1 WHERE one = 1 RETURNING drains").Scan(ctx, &order); err != nil {
		return err
	}
	_, err := tx.NewRaw("UPDATE replicas SET drained = ? WHERE live AND id IN (?) AND status = ? AND drained = 0",
		order, bun.List(ids), string(dstack.ReplicaDraining)).Exec(ctx)
	return err
}

func toStrings[T ~string](ids []T) []string {
	return mapRows(ids, func(id T) string { return string(id) })
}

// checkNoneServes fails with Conflict if a replica that is to terminate
// gracefully has become ready since the decision: see
// lifecycle.RunStep.TerminateReplica.
func checkNoneServes(ctx context.Context, tx bun.Tx, run dstack.RunID, ids []string) error {
	var serving []string
	err := tx.NewRaw("SELECT id FROM replicas WHERE live AND run_id = ? AND id IN (?) AND (status = ? OR status = ?)", string(run), bun.List(ids),
		string(dstack.ReplicaReady), string(dstack.ReplicaUnhealthy)).Scan(ctx, &serving)
	if err == nil && len(serving) > 0 {
		return conflict(retryHint, "cannot end replicas of run %s without draining them: they have become ready", run)
	}
	return err
}

// terminateReplicas does step.TerminateReplica for all of step.Terminate in one
// statement.
func terminateReplicas(ctx context.Context, tx bun.Tx, run dstack.RunID, step lifecycle.RunStep, now time.Time) error {
	if len(step.Terminate) == 0 {
		return nil
	}
	ids := toStrings(step.Terminate)
	if step.Graceful {
		if err := checkNoneServes(ctx, tx, run, ids); err != nil {
			return err
		}
	}
	to, _ := step.TerminateReplica(dstack.Replica{}, now)
	status := string(to.Status)
	_, err := tx.NewRaw(`UPDATE replicas SET status = ?, reason = ?, grace = (CASE WHEN status = ? THEN grace AND ? ELSE ? END),
		since = CASE WHEN status = ? THEN since ELSE ? END, backoff_at = ?, version = version + 1
		WHERE live AND run_id = ? AND id IN (?)`,
		status, cleanText(to.Reason), status, to.Graceful, to.Graceful, status, toMicros(to.Since), toMicros(to.RetryAt), string(run), bun.List(ids)).Exec(ctx)
	if err != nil {
		return err
	}
	if err := markDue(ctx, tx, Replicas, now, "run_id = ? AND id IN (?)", string(run), bun.List(ids)); err != nil {
		return err
	}
	return markInstancesDue(ctx, tx, now, "id IN (?)", bun.List(ids))
}

// bumpInstances raises the versions of the instances that hold a run's replicas,
// because the run has another configuration. Facts read before are then
// outdated. No instance is marked due.
func bumpInstances(ctx context.Context, tx bun.Tx, run dstack.RunID) error {
	_, err := tx.NewRaw(`UPDATE instances SET version = version + 1
		WHERE live AND id IN (SELECT instance_id FROM replicas WHERE live AND run_id = ?)`, string(run)).Exec(ctx)
	return err
}

// markInstancesDue marks the instances of unfinished replicas due.
func markInstancesDue(ctx context.Context, tx bun.Tx, now time.Time, where string, args ...any) error {
	return markDue(ctx, tx, Instances, now, "id IN (SELECT instance_id FROM replicas WHERE live AND "+where+")", args...)
}
