package store

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

const (
	maxEvents         = 1000                // of each run name in a project, and a few more at times
	maxEventAge       = 90 * 24 * time.Hour // older events are deleted
	trimEvery         = 50                  // events between two deletions of old ones
	defaultEventLimit = 100                 // listed where the caller names no limit
)

type eventRow struct {
	bun.BaseModel `bun:"table:events,alias:e"`

	ID        int64 `bun:",pk"`
	ProjectID string
	RunID     string
	RunName   string
	At        int64
	Kind      string
	Revision  int
	Replica   *int
	Group     string `bun:"replica_group"`
	Was       string
	Became    string
	Username  string
	Message   string
}

func (r eventRow) toEvent() dstack.Event {
	return dstack.Event{
		ID: r.ID, At: fromMicros(r.At), Project: dstack.ProjectID(r.ProjectID), Run: dstack.RunID(r.RunID), RunName: r.RunName,
		Kind: dstack.EventKind(r.Kind), Revision: r.Revision, Replica: r.Replica, Group: r.Group, From: r.Was, To: r.Became, User: r.Username, Message: r.Message,
	}
}

// Events returns the latest events of all runs of a name, finished and deleted
// ones too, with an ID above after, the oldest first: limit of them, at most
// 1000; 0: 100. An event with a lower ID than a returned one never appears later.
func (s *Store) Events(ctx context.Context, p dstack.ProjectID, name string, after int64, limit int) ([]dstack.Event, error) {
	if limit <= 0 {
		limit = defaultEventLimit
	}
	var rows []eventRow
	err := s.reader.NewSelect().Model(&rows).Where("project_id = ? AND run_name = ? AND id > ?", string(p), name, after).
		OrderExpr("id DESC").Limit(int64(min(limit, maxEvents))).Scan(ctx)
	slices.Reverse(rows)
	return mapRows(rows, eventRow.toEvent), wrapError(err)
}

// EventQuery selects events of several runs.
type EventQuery struct {
	Projects   []dstack.ProjectID // none: no events
	Runs       []dstack.RunID     // nil: all
	Users      []string           // who requested the change; "": dstack itself; nil: all
	OfRuns     bool               // events about runs as a whole
	OfReplicas bool               // events about one replica
	Beyond     time.Time          // only later ones if Ascending, and else earlier ones; zero: all
	BeyondID   int64              // only events with a greater ID if Ascending, and else with a lower one; 0: all
	Ascending  bool               // the oldest first, and else the newest
	Limit      int
}

// FindEvents returns the events of runs that a query selects, those of deleted runs among them.
func (s *Store) FindEvents(ctx context.Context, q EventQuery) ([]dstack.Event, error) {
	if len(q.Projects) == 0 || !q.OfRuns && !q.OfReplicas || q.Limit <= 0 {
		return nil, nil
	}
	var rows []eventRow
	query := s.reader.NewSelect().Model(&rows).Where("project_id IN ? AND run_id <> ''", bun.Tuple(q.Projects)).Limit(int64(q.Limit))
	if q.Runs != nil {
		query.Where("run_id IN ?", bun.Tuple(q.Runs))
	}
	if q.Users != nil {
		query.Where("username IN ?", bun.Tuple(q.Users))
	}
	switch {
	case !q.OfReplicas:
		query.Where("replica IS NULL")
	case !q.OfRuns:
		query.Where("replica IS NOT NULL")
	}
	order, beyond := "id DESC", "<"
	if q.Ascending {
		order, beyond = "id ASC", ">"
	}
	switch {
	case q.BeyondID != 0:
		query.Where("id "+beyond+" ?", q.BeyondID)
	case !q.Beyond.IsZero():
		query.Where("at "+beyond+" ?", toMicros(q.Beyond))
	}
	err := query.OrderExpr(order).Scan(ctx)
	return mapRows(rows, eventRow.toEvent), wrapError(err)
}

// addEvents inserts events. It must be the last statement of a transaction: other
// transactions with events wait for its end, so that IDs follow commit order.
func addEvents(ctx context.Context, tx bun.Tx, events []dstack.Event, now time.Time) error {
	if len(events) == 0 {
		return nil
	}
	var last int64
	err := tx.NewRaw("UPDATE installation SET events = events + ? WHERE one = 1 RETURNING events", len(events)).Scan(ctx, &last)
	if err != nil {
		return err
	}
	first := last - int64(len(events)) + 1
	rows := make([]eventRow, len(events))
	for i, e := range events {
		if e.At.IsZero() {
			e.At = now
		}
		rows[i] = eventRow{
			ID: first + int64(i), ProjectID: string(e.Project), RunID: string(e.Run), RunName: e.RunName, At: toMicros(e.At),
			Kind: string(e.Kind), Revision: e.Revision, Replica: e.Replica, Group: e.Group, Was: cleanText(e.From), Became: cleanText(e.To), Username: e.User, Message: cleanText(e.Message),
		}
	}
	if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
		return err
	}
	if first/trimEvery == last/trimEvery && first%trimEvery != 0 {
		return nil
	}
	return trimEvents(ctx, tx, events, now)
}

// trimEvents deletes old events, and the oldest of each run name in some that has
// too many.
func trimEvents(ctx context.Context, tx bun.Tx, some []dstack.Event, now time.Time) error {
	if _, err := tx.NewRaw("DELETE FROM events WHERE at < ?", toMicros(now.Add(-maxEventAge))).Exec(ctx); err != nil {
		return err
	}
	type name struct {
		project dstack.ProjectID
		run     string
	}
	trimmed := map[name]bool{}
	for _, e := range some {
		of := name{e.Project, e.RunName}
		if trimmed[of] {
			continue
		}
		trimmed[of] = true
		_, err := tx.NewRaw(`DELETE FROM events WHERE project_id = ? AND run_name = ? AND id <=
			(SELECT id FROM events WHERE project_id = ? AND run_name = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`,
			string(e.Project), e.RunName, string(e.Project), e.RunName, maxEvents).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}
