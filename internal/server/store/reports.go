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

// reportDiff is what a machine's engine said, held against what is known.
type reportDiff struct {
	seen    lifecycle.InstanceFacts // when the engine was asked
	heard   []dstack.Report
	present []placedAttempt                     // what is placed on it now
	saved   map[dstack.AttemptID]*dstack.Report // what it said the last time
}

// placedAttempt is a replica on a machine.
type placedAttempt struct {
	id      dstack.ReplicaID
	attempt dstack.AttemptID
	since   time.Time
}

// saveReports writes what an engine said of the attempts that were placed on
// it when it was asked. Silence means that it has nothing of an attempt. What
// it said of attempts that are not placed any more is forgotten.
func saveReports(ctx context.Context, tx bun.Tx, l Lease, seen lifecycle.InstanceFacts, heard []dstack.Report, now time.Time) (told, forgot bool, err error) {
	h, err := newReportDiff(ctx, tx, l, seen, heard)
	if err != nil {
		return false, false, err
	}
	news, gone, err := h.compare(now)
	if err != nil {
		return false, false, err
	}
	if err := putReports(ctx, tx, news, now); err != nil {
		return false, false, err
	}
	for ids := range slices.Chunk(gone, 1000) {
		if _, err := tx.NewRaw("DELETE FROM reports WHERE attempt_id IN (?)", bun.List(toStrings(ids))).Exec(ctx); err != nil {
			return false, false, err
		}
	}
	return len(news) > 0, len(gone) > 0, nil
}

// newReportDiff looks at what is placed on the machine now. When nobody has
// touched the instance since it was claimed, that is what was seen.
func newReportDiff(ctx context.Context, tx bun.Tx, l Lease, seen lifecycle.InstanceFacts, heard []dstack.Report) (h reportDiff, err error) {
	h = reportDiff{seen: seen, heard: heard}
	var touches int64
	if err := tx.NewRaw("SELECT touches FROM instances WHERE id = ?", l.ID).Scan(ctx, &touches); err != nil {
		return h, err
	}
	reports := seen.Reports
	if touches == l.Touches {
		for _, p := range seen.Replicas {
			if p.Replica.Attempt != "" {
				h.present = append(h.present, placedAttempt{p.Replica.ID, p.Replica.Attempt, p.Replica.Since})
			}
		}
	} else {
		if h.present, err = findPlacedAttempts(ctx, tx, seen.Instance.ID); err != nil {
			return h, err
		}
		reports, err = findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.instance_id = ?", l.ID) })
		if err != nil {
			return h, err
		}
	}
	h.saved = make(map[dstack.AttemptID]*dstack.Report, len(reports))
	for i := range reports {
		h.saved[reports[i].Attempt] = &reports[i]
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

// compare returns what is new, and the attempts of which nothing is known any
// more.
func (h reportDiff) compare(now time.Time) (news []reportRow, gone []dstack.AttemptID, err error) {
	said := make(map[dstack.AttemptID]*dstack.Report, len(h.heard))
	for i := range h.heard {
		said[h.heard[i].Attempt] = &h.heard[i]
	}
	asked := make(map[dstack.AttemptID]time.Time, len(h.seen.Replicas)) // since when each was as it was
	for i := range h.seen.Replicas {
		asked[h.seen.Replicas[i].Replica.Attempt] = h.seen.Replicas[i].Replica.Since
	}
	on := make(map[dstack.AttemptID]bool, len(h.present))
	for _, r := range h.present {
		on[r.attempt] = true
		old, rep := h.saved[r.attempt], said[r.attempt]
		if rep == nil {
			if since, wasAsked := asked[r.attempt]; !wasAsked || !since.Equal(r.since) {
				continue // placed or ended meanwhile: silence is no answer yet; the change made us due again
			}
			rep = &dstack.Report{Attempt: r.attempt, State: dstack.AttemptAbsent}
		}
		stale := rep.State == dstack.AttemptAbsent && old != nil && r.since.After(old.At)
		text, isNew, err := changedText(old, *rep)
		if err != nil {
			return nil, nil, fmt.Errorf("write the report of attempt %s: %w", r.attempt, err)
		}
		if !isNew && !stale {
			continue
		}
		news = append(news, reportRow{AttemptID: string(r.attempt), InstanceID: string(h.seen.Instance.ID),
			ReplicaID: string(r.id), Report: text, At: toMicros(now)})
	}
	for id := range h.saved {
		if !on[id] {
			gone = append(gone, id)
		}
	}
	return news, gone, nil
}

// changedText is a report as it is kept, and whether that differs from the old one.
// Most are the same, and telling that takes no text.
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

// sameReport says that two reports of one attempt are the same once they are
// kept: but for the time at which they were seen, and other times to the
// microsecond.
func sameReport(a, b dstack.Report) bool {
	if (a.Probes == nil) != (b.Probes == nil) || a.Probes != nil && *a.Probes != *b.Probes {
		return false
	}
	return a.State == b.State && a.Ready == b.Ready && a.Endpoint == b.Endpoint && a.Progress == b.Progress &&
		a.ExitCode == b.ExitCode && a.OOM == b.OOM && a.Error == b.Error && a.Permanent == b.Permanent &&
		slices.Equal(a.LastOutput, b.LastOutput) && toMicros(a.StartedAt) == toMicros(b.StartedAt) && toMicros(a.EndedAt) == toMicros(b.EndedAt)
}

// putReports writes reports, and makes their replicas due.
func putReports(ctx context.Context, tx bun.Tx, news []reportRow, now time.Time) error {
	for some := range slices.Chunk(news, 500) {
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
