package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// reportDiff compares an engine's reports with the stored ones.
type reportDiff struct {
	facts   lifecycle.InstanceFacts // the facts at the time of the reports
	reports []dstack.Report
	placed  []placedAttempt                     // attempts placed on the instance now
	stored  map[dstack.AttemptID]*dstack.Report // the stored reports
}

// placedAttempt is the present attempt of a replica on an instance.
type placedAttempt struct {
	id      dstack.ReplicaID
	attempt dstack.AttemptID
	since   time.Time
}

// saveReports writes an engine's reports of the attempts that were placed on it
// when it was asked. An attempt without a report is absent. Reports of attempts
// that are not placed any more are deleted. isNew says that a report changed,
// isGone that one was deleted.
func saveReports(ctx context.Context, tx bun.Tx, l Lease, seen lifecycle.InstanceFacts, reports []dstack.Report, now time.Time) (isNew, isGone bool, err error) {
	h, err := newReportDiff(ctx, tx, l, seen, reports)
	if err != nil {
		return false, false, err
	}
	changed, gone, err := h.compare(now)
	if err != nil {
		return false, false, err
	}
	if err := putReports(ctx, tx, changed, now); err != nil {
		return false, false, err
	}
	if err := limitToReports(ctx, tx, changed, len(gone) > 0); err != nil {
		return false, false, err
	}
	for ids := range slices.Chunk(gone, 1000) {
		if _, err := tx.NewRaw("DELETE FROM reports WHERE attempt_id IN (?)", bun.List(toStrings(ids))).Exec(ctx); err != nil {
			return false, false, err
		}
	}
	return len(changed) > 0, len(gone) > 0, nil
}

// limitToReports says that the transaction of ctx changes the routes of the runs with these reports alone.
func limitToReports(ctx context.Context, tx bun.Tx, changed []reportRow, isMore bool) error {
	if isMore || len(changed) == 0 || len(changed) > maxPatchedRuns {
		return nil
	}
	var runs []string
	ids := mapRows(changed, func(r reportRow) string { return r.ReplicaID })
	err := tx.NewRaw("SELECT DISTINCT run_id FROM replicas WHERE id IN (?)", bun.List(ids)).Scan(ctx, &runs)
	limitChange(ctx, runs...)
	return err
}

// newReportDiff reads what is placed on the instance now. If the instance was not
// marked due since it was claimed, that is what was seen.
func newReportDiff(ctx context.Context, tx bun.Tx, l Lease, seen lifecycle.InstanceFacts, reports []dstack.Report) (h reportDiff, err error) {
	h = reportDiff{facts: seen, reports: reports}
	var touches int64
	if err := tx.NewRaw("SELECT touches FROM instances WHERE id = ?", l.ID).Scan(ctx, &touches); err != nil {
		return h, err
	}
	stored := seen.Reports
	if touches == l.Touches {
		for _, p := range seen.Replicas {
			if p.Replica.Attempt != "" {
				h.placed = append(h.placed, placedAttempt{p.Replica.ID, p.Replica.Attempt, p.Replica.Since})
			}
		}
	} else {
		if h.placed, err = findPlacedAttempts(ctx, tx, seen.Instance.ID); err != nil {
			return h, err
		}
		stored, err = findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.instance_id = ?", l.ID) })
		if err != nil {
			return h, err
		}
	}
	h.stored = make(map[dstack.AttemptID]*dstack.Report, len(stored))
	for i := range stored {
		h.stored[stored[i].Attempt] = &stored[i]
	}
	return h, nil
}

func findPlacedAttempts(ctx context.Context, tx bun.Tx, id dstack.InstanceID) ([]placedAttempt, error) {
	var rows []struct {
		ID, AttemptID string
		Since         int64
	}
	err := tx.NewRaw("SELECT id, attempt_id, since FROM replicas WHERE live AND instance_id = ? AND attempt_id <> ''", string(id)).Scan(ctx, &rows)
	all := make([]placedAttempt, len(rows))
	for i, row := range rows {
		all[i] = placedAttempt{dstack.ReplicaID(row.ID), dstack.AttemptID(row.AttemptID), fromMicros(row.Since)}
	}
	return all, err
}

// compare returns the changed reports, and the attempts whose stored reports are
// obsolete.
func (h reportDiff) compare(now time.Time) (changed []reportRow, gone []dstack.AttemptID, err error) {
	heard := make(map[dstack.AttemptID]*dstack.Report, len(h.reports))
	for i := range h.reports {
		heard[h.reports[i].Attempt] = &h.reports[i]
	}
	asked := make(map[dstack.AttemptID]*time.Time, len(h.facts.Replicas)) // the replica's Since when the engine was asked
	for i := range h.facts.Replicas {
		asked[h.facts.Replicas[i].Replica.Attempt] = &h.facts.Replicas[i].Replica.Since
	}
	on := make(map[dstack.AttemptID]bool, len(h.placed))
	for _, r := range h.placed {
		on[r.attempt] = true
		old := h.stored[r.attempt]
		rep, mustSave := lifecycle.MergeReport(lifecycle.ReportFacts{
			Attempt: r.attempt, Since: r.since, SinceAtSync: asked[r.attempt], Heard: heard[r.attempt], Saved: old,
		})
		if rep == nil {
			continue // the instance is due again
		}
		text, isNew, err := changedText(old, *rep)
		if err != nil {
			return nil, nil, fmt.Errorf("write the report of attempt %s: %w", r.attempt, err)
		}
		if !isNew && !mustSave {
			continue
		}
		changed = append(changed, reportRow{AttemptID: string(r.attempt), InstanceID: string(h.facts.Instance.ID),
			ReplicaID: string(r.id), Report: text, At: toMicros(now)})
	}
	for id := range h.stored {
		if !on[id] {
			gone = append(gone, id)
		}
	}
	return changed, gone, nil
}

// changedText returns a report as it is stored, and whether that differs from the
// old one. The text is empty when sameReport finds no difference: that is the
// usual case, and it is cheap.
func changedText(old *dstack.Report, rep dstack.Report) (text string, isNew bool, err error) {
	if old != nil && rep.State != dstack.AttemptAbsent && sameReport(*old, rep) {
		return "", false, nil
	}
	if text, err = reportText(rep); err != nil || old == nil {
		return text, true, err
	}
	before, err := reportText(*old)
	return text, before != text, err
}

// sameReport reports whether two reports of one attempt are equal once stored:
// without At, and with other times in microseconds.
func sameReport(a, b dstack.Report) bool {
	if (a.Probes == nil) != (b.Probes == nil) || a.Probes != nil && *a.Probes != *b.Probes {
		return false
	}
	return a.State == b.State && a.Ready == b.Ready && a.Endpoint == b.Endpoint && a.Progress == b.Progress &&
		a.ExitCode == b.ExitCode && a.OOM == b.OOM && a.Error == b.Error && a.Permanent == b.Permanent && a.OtherMachine == b.OtherMachine && a.Disrupted == b.Disrupted && a.Ending == b.Ending &&
		a.Node == b.Node && a.Port == b.Port && slices.Equal(a.Listening, b.Listening) &&
		slices.Equal(a.LastOutput, b.LastOutput) && toMicros(a.StartedAt) == toMicros(b.StartedAt) && toMicros(a.EndedAt) == toMicros(b.EndedAt)
}

// putReports writes reports and marks their replicas due.
func putReports(ctx context.Context, tx bun.Tx, changed []reportRow, now time.Time) error {
	for some := range slices.Chunk(changed, 500) {
		_, err := tx.NewInsert().Model(&some).On("CONFLICT (attempt_id) DO UPDATE").
			Set("instance_id = EXCLUDED.instance_id").Set("report = EXCLUDED.report").Set("at = EXCLUDED.at").Exec(ctx)
		if err != nil {
			return err
		}
		ids := mapRows(some, func(r reportRow) string { return r.ReplicaID })
		if err := markDue(ctx, tx, Replicas, now, "id IN (?)", bun.List(ids)); err != nil {
			return err
		}
	}
	return nil
}
