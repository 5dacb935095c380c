package store

import (
	"context"
	"fmt"
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
	err = s.note(ctx, func(ctx context.Context, tx bun.Tx) error {
		changed = next.Status != seen.Instance.Status
		if changed {
			if err := touch(ctx, tx, Replicas, now, "instance_id = ?", string(next.ID)); err != nil {
				return err
			}
		}
		if heard != nil {
			told, err := saveReports(ctx, tx, seen, heard, now)
			if err != nil {
				return err
			}
			changed = changed || told
		}
		return saveRow(ctx, tx, l, seen.Instance.Version, step.Due,
			"status = ?, reason = ?, since = ?, heard_at = ?, last_fail = ?, fails = ?, live = ?",
			string(next.Status), clean(next.Reason), micros(next.Since), micros(next.HeardAt), clean(next.LastFail), next.Fails, !deleted)
	})
	return changed && err == nil, err
}

// nextInstance is an instance after a step.
func nextInstance(i dstack.Instance, step lifecycle.InstanceStep, answered bool, fail error, now time.Time) dstack.Instance {
	if step.To != i.Status {
		i.Since = now
	}
	i.Status, i.Reason = step.To, step.Reason
	if answered && (i.Fails > 0 || now.Sub(i.HeardAt) >= heardEvery) {
		i.HeardAt = now
	}
	if fail == nil {
		i.Fails, i.LastFail = 0, ""
	} else {
		i.Fails, i.LastFail = i.Fails+1, fail.Error()
	}
	return i
}

// saveReports writes what an engine said of the attempts that were placed on
// it when it was asked. Silence means that it has nothing of an attempt. What
// it said of attempts that are not placed any more is forgotten.
func saveReports(ctx context.Context, tx bun.Tx, seen lifecycle.InstanceFacts, heard []dstack.Report, now time.Time) (changed bool, err error) {
	id := seen.Instance.ID
	present, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) {
		q.Where("r.live AND r.instance_id = ? AND r.attempt_id <> ''", string(id))
	})
	if err != nil {
		return false, err
	}
	saved, err := savedReports(ctx, tx, id)
	if err != nil {
		return false, err
	}
	said := make(map[dstack.AttemptID]dstack.Report, len(heard))
	for _, rep := range heard {
		said[rep.Attempt] = rep
	}
	asked := make(map[dstack.AttemptID]dstack.Replica, len(seen.Replicas))
	for _, p := range seen.Replicas {
		asked[p.Replica.Attempt] = p.Replica
	}
	for _, r := range present {
		old, wasSaved := saved[r.Attempt]
		delete(saved, r.Attempt)
		before, wasAsked := asked[r.Attempt]
		rep, wasHeard := said[r.Attempt]
		if !wasHeard {
			if !wasAsked || !before.Since.Equal(r.Since) {
				continue // placed or ended meanwhile: silence is no answer yet; the change made us due again
			}
			rep = dstack.Report{Attempt: r.Attempt, Outcome: dstack.OutcomeAbsent}
		}
		text, err := reportText(rep)
		if err != nil {
			return false, fmt.Errorf("write the report of attempt %s: %w", r.Attempt, err)
		}
		stale := rep.Outcome == dstack.OutcomeAbsent && micros(r.Since) > old.At
		if wasSaved && old.Report == text && !stale {
			continue
		}
		if err := putReport(ctx, tx, id, r, text, now); err != nil {
			return false, err
		}
		changed = true
	}
	return changed, dropReports(ctx, tx, saved)
}

func savedReports(ctx context.Context, tx bun.Tx, id dstack.InstanceID) (map[dstack.AttemptID]reportRow, error) {
	var rows []reportRow
	if err := tx.NewSelect().Model(&rows).Where("instance_id = ?", string(id)).Scan(ctx); err != nil {
		return nil, err
	}
	saved := make(map[dstack.AttemptID]reportRow, len(rows))
	for _, row := range rows {
		saved[dstack.AttemptID(row.AttemptID)] = row
	}
	return saved, nil
}

func putReport(ctx context.Context, tx bun.Tx, id dstack.InstanceID, r dstack.Replica, text string, now time.Time) error {
	row := reportRow{AttemptID: string(r.Attempt), InstanceID: string(id), ReplicaID: string(r.ID), Report: text, At: micros(now)}
	_, err := tx.NewInsert().Model(&row).On("CONFLICT (attempt_id) DO UPDATE").
		Set("instance_id = EXCLUDED.instance_id").Set("report = EXCLUDED.report").Set("at = EXCLUDED.at").Exec(ctx)
	if err != nil {
		return err
	}
	return touch(ctx, tx, Replicas, now, "id = ?", string(r.ID))
}

func dropReports(ctx context.Context, tx bun.Tx, left map[dstack.AttemptID]reportRow) error {
	if len(left) == 0 {
		return nil
	}
	ids := make([]string, 0, len(left))
	for id := range left {
		ids = append(ids, string(id))
	}
	_, err := tx.NewRaw("DELETE FROM reports WHERE attempt_id IN (?)", bun.List(ids)).Exec(ctx)
	return err
}
