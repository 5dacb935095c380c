package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SubmitRun inserts a run with status submitted, at revision 1, due now. In the
// same transaction it marks earlier finished runs of the name Deleted. It fails
// with Conflict when one of them is not finished, and with Invalid when a secret
// that it refers to does not exist. leftOut names the links of its code that replicas
// do not get.
func (s *Store) SubmitRun(ctx context.Context, r dstack.Run, leftOut ...string) error {
	r.SubmittedAt = orNow(r.SubmittedAt)
	if _, err := s.newRunRow(r); err != nil { // fail before the transaction
		return err
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, r.ProjectID); err != nil {
			return err
		}
		if err := pinSecrets(ctx, tx, r.ProjectID, &r.Spec); err != nil {
			return err
		}
		row, err := s.newRunRow(r)
		if err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE runs SET deleted = TRUE, version = version + 1 WHERE project_id = ? AND name = ? AND NOT live AND NOT deleted",
			row.ProjectID, row.Name).Exec(ctx)
		if err != nil {
			return err
		}
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return conflict(fmt.Sprintf("stop it first: dstack stop %s", r.Name), "a run named %q exists and is not finished", r.Name)
		}
		if err := putRevision(ctx, tx, row, r.User, 0, r.SubmittedAt); err != nil {
			return err
		}
		if err := pinArchives(ctx, tx, row.ID, r.Spec.FileArchives, r.SubmittedAt); err != nil {
			return err
		}
		events := []dstack.Event{row.event(dstack.EventApplied, r.User, "revision 1")}
		return addEvents(ctx, tx, append(events, lifecycle.LeftOutEvents(r, r.User, leftOut)...), r.SubmittedAt)
	})
}

// lockProject locks a project's row until the transaction ends: the project is not
// deleted meanwhile, and submissions to it come one after the other; NotFound. Passes
// that lock a run and then add an event are not held up: its foreign key needs a
// weaker lock.
func (s *Store) lockProject(ctx context.Context, tx bun.Tx, id dstack.ProjectID) error {
	query := "SELECT id FROM projects WHERE id = ?"
	if s.kind == postgres {
		query += " FOR NO KEY UPDATE"
	}
	var ids []string
	if err := tx.NewRaw(query, string(id)).Scan(ctx, &ids); err != nil {
		return err
	}
	if len(ids) == 0 {
		return &dstack.Error{Kind: dstack.NotFound, Message: "the project is not there any more"}
	}
	return nil
}

// StopRun records that a user wants a run to end, and marks it due. Abort
// overrides stop; a finished run stays as it is; NotFound.
func (s *Store) StopRun(ctx context.Context, id dstack.RunID, stop dstack.StopRequest, by string, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		row, err := s.lockRun(ctx, tx, id)
		if err != nil || !row.Live {
			return err
		}
		if err := markDue(ctx, tx, Runs, now, "id = ?", string(id)); err != nil {
			return err
		}
		if row.Stop == string(stop) || row.Stop == string(dstack.StopAbort) {
			return nil
		}
		if _, err := tx.NewRaw("UPDATE runs SET stop = ?, version = version + 1 WHERE id = ?", string(stop), string(id)).Exec(ctx); err != nil {
			return err
		}
		e := row.event(dstack.EventStop, by, "asked to stop")
		if stop == dstack.StopAbort {
			e.Message = "asked to end at once"
		}
		e.To = string(stop)
		return addEvents(ctx, tx, []dstack.Event{e}, now)
	})
}

// DeleteRuns marks finished runs of these names Deleted. It fails with Conflict,
// and deletes none, when one is not finished. Unknown names are ignored.
func (s *Store) DeleteRuns(ctx context.Context, p dstack.ProjectID, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		var live []string
		err := tx.NewRaw("SELECT name FROM runs WHERE project_id = ? AND name IN (?) AND live ORDER BY name", string(p), bun.List(names)).Scan(ctx, &live)
		if err != nil {
			return err
		}
		if len(live) > 0 {
			return conflict("stop them first, and wait until they have ended", "cannot delete runs that are not finished: %s", joinNames(live))
		}
		_, err = tx.NewRaw("UPDATE runs SET deleted = TRUE, version = version + 1 WHERE project_id = ? AND name IN (?) AND NOT live AND NOT deleted",
			string(p), bun.List(names)).Exec(ctx)
		return err
	})
}

// Run returns the run of a name that is not Deleted; NotFound. The caller must not
// change what its spec points to.
func (s *Store) Run(ctx context.Context, p dstack.ProjectID, name string) (dstack.Run, error) {
	var rows []runRow
	if err := whereNamed(selectRuns(s.reader, &rows), p, name).Scan(ctx); err != nil {
		return dstack.Run{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.Run{}, noRunNamed(name)
	}
	return s.openRuns(rows)[0], nil
}

// whereNamed limits a query of selectRuns to the run of a name that is not Deleted.
func whereNamed(query *bun.SelectQuery, p dstack.ProjectID, name string) *bun.SelectQuery {
	return query.Where("r.project_id = ? AND r.name = ? AND NOT r.deleted", string(p), name)
}

func noRunNamed(name string) error {
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run named %q in this project", name)}
}

// RunQuery selects runs. BeforeAt and BeforeID are of the last run of the page
// before.
type RunQuery struct {
	Projects   []dstack.ProjectID // nil: all
	Repo       string
	User       string
	OnlyActive bool
	BeforeAt   time.Time
	BeforeID   dstack.RunID
	Ascending  bool
	Limit      int // 0: 100
}

// Runs lists runs that are not Deleted, newest first (id ascending in a tie). The
// caller must not change what their specs point to.
func (s *Store) Runs(ctx context.Context, q RunQuery) ([]dstack.Run, error) {
	if q.selectsNothing() {
		return nil, nil
	}
	var rows []runRow
	if err := q.narrow(selectRuns(s.reader, &rows)).Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	return s.openRuns(rows), nil
}

func (q RunQuery) selectsNothing() bool { return q.Projects != nil && len(q.Projects) == 0 }

// narrow limits a query of selectRuns to the runs that q selects, in their order.
func (q RunQuery) narrow(query *bun.SelectQuery) *bun.SelectQuery {
	query.Where("NOT r.deleted")
	if q.Projects != nil {
		query.Where("r.project_id IN (?)", bun.List(q.Projects))
	}
	if q.Repo != "" {
		query.Where("r.repo = ?", q.Repo)
	}
	if q.User != "" {
		query.Where("r.username = ?", q.User)
	}
	if q.OnlyActive {
		query.Where("r.live")
	}
	after, order := "<", "r.submitted_at DESC, r.id"
	if q.Ascending {
		after, order = ">", "r.submitted_at, r.id"
	}
	if !q.BeforeAt.IsZero() {
		last := toMicros(q.BeforeAt)
		if q.BeforeID == "" {
			query.Where("r.submitted_at "+after+" ?", last)
		} else {
			query.Where("(r.submitted_at "+after+" ? OR (r.submitted_at = ? AND r.id > ?))", last, last, string(q.BeforeID))
		}
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	return query.OrderExpr(order).Limit(int64(limit))
}

// RunNames returns the names of all runs of a project that are not Deleted.
func (s *Store) RunNames(ctx context.Context, p dstack.ProjectID) (map[string]bool, error) {
	var names []string
	err := s.reader.NewRaw("SELECT name FROM runs WHERE project_id = ? AND NOT deleted", string(p)).Scan(ctx, &names)
	if err != nil {
		return nil, wrapError(err)
	}
	taken := make(map[string]bool, len(names))
	for _, name := range names {
		taken[name] = true
	}
	return taken, nil
}
