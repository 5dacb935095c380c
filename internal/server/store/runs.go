package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// SubmitRun inserts a run with status submitted, due now. In the same
// transaction it makes earlier finished runs of the name Deleted; Conflict
// when one is not finished, naming it.
func (s *Store) SubmitRun(ctx context.Context, r dstack.Run) error {
	r.SubmittedAt = orNow(r.SubmittedAt)
	row, err := s.rowOf(r)
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.holdProject(ctx, tx, r.ProjectID); err != nil {
			return err
		}
		_, err := tx.NewRaw("UPDATE runs SET deleted = TRUE, version = version + 1 WHERE project_id = ? AND name = ? AND NOT live AND NOT deleted",
			row.ProjectID, row.Name).Exec(ctx)
		if err != nil {
			return err
		}
		n, err := affected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err == nil && n == 0 {
			return conflict(fmt.Sprintf("stop it first: dstack stop %s", r.Name), "a run named %q exists and is not finished", r.Name)
		}
		return err
	})
}

// holdProject keeps a project from being deleted until the transaction ends,
// and lets one submission to it in at a time; NotFound.
func (s *Store) holdProject(ctx context.Context, tx bun.Tx, id dstack.ProjectID) error {
	query := "SELECT id FROM projects WHERE id = ?"
	if s.kind == postgres {
		query += " FOR UPDATE"
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

// ReviseRun gives an unfinished run a new spec: revision+1, status kept,
// ReadyAt cleared, due now. Conflict when its revision is not the given one
// any more or it is being stopped.
func (s *Store) ReviseRun(ctx context.Context, id dstack.RunID, revision int, spec dstack.RunSpec, by string, now time.Time) (dstack.Run, error) {
	sealed, err := s.sealSpec(id, spec)
	if err != nil {
		return dstack.Run{}, err
	}
	model, prefix, format, template, err := published(spec)
	if err != nil {
		return dstack.Run{}, err
	}
	var run dstack.Run
	err = s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := affected(tx.NewRaw(`UPDATE runs SET spec = ?, repo = ?, auth = ?, model = ?, prefix = ?, format = ?, template = ?, username = ?,
			revision = revision + 1, ready_at = 0, version = version + 1 WHERE id = ? AND revision = ? AND live AND stop = '' AND status <> ?`,
			sealed, spec.RepoID, spec.Configuration.Auth, model, prefix, format, template, by, string(id), revision, string(dstack.RunTerminating)).Exec(ctx))
		if err != nil {
			return err
		}
		if run, err = findRun(ctx, tx, id, s.openRun); err != nil {
			return err
		}
		if n == 0 {
			return whyNotRevised(run, revision)
		}
		return touch(ctx, tx, Runs, now, "id = ?", string(id))
	})
	if err != nil {
		return dstack.Run{}, err
	}
	return run, nil
}

func whyNotRevised(run dstack.Run, revision int) error {
	switch {
	case run.Status.Finished():
		return conflict("apply again to start it anew", "cannot change run %q: it has ended", run.Name)
	case run.Revision != revision:
		return conflict("apply again to see what changed", "cannot change run %q: somebody else changed it meanwhile", run.Name)
	default:
		return conflict("wait until it has ended and apply again", "cannot change run %q: it is being stopped", run.Name)
	}
}

// StopRun notes the wish, due now. Abort overrides stop; a finished run is
// left as it is.
func (s *Store) StopRun(ctx context.Context, id dstack.RunID, stop dstack.StopRequest, now time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE runs SET stop = ?, version = version + 1 WHERE id = ? AND live AND stop <> ? AND stop <> ?",
			string(stop), string(id), string(stop), string(dstack.StopAbort)).Exec(ctx)
		if err != nil {
			return err
		}
		if err := touch(ctx, tx, Runs, now, "id = ?", string(id)); err != nil {
			return err
		}
		n, err := tx.NewSelect().Model((*runRow)(nil)).Where("id = ?", string(id)).Count(ctx)
		if err == nil && n == 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run %s", id)}
		}
		return err
	})
}

// DeleteRuns makes finished runs of these names Deleted; Conflict naming
// those that are not finished, and then none is; unknown names are ignored.
func (s *Store) DeleteRuns(ctx context.Context, p dstack.ProjectID, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		var live []string
		err := tx.NewRaw("SELECT name FROM runs WHERE project_id = ? AND name IN (?) AND live ORDER BY name", string(p), bun.List(names)).Scan(ctx, &live)
		if err != nil {
			return err
		}
		if len(live) > 0 {
			return conflict("stop them first, and wait until they have ended", "cannot delete runs that are not finished: %s", list(live))
		}
		_, err = tx.NewRaw("UPDATE runs SET deleted = TRUE, version = version + 1 WHERE project_id = ? AND name IN (?) AND NOT live AND NOT deleted",
			string(p), bun.List(names)).Exec(ctx)
		return err
	})
}

// Run returns the run of a name that is not Deleted; NotFound.
func (s *Store) Run(ctx context.Context, p dstack.ProjectID, name string) (dstack.Run, error) {
	var rows []runRow
	err := selectRuns(s.reader, &rows).Where("r.project_id = ? AND r.name = ? AND NOT r.deleted", string(p), name).Scan(ctx)
	if err != nil {
		return dstack.Run{}, explain(err)
	}
	if len(rows) == 0 {
		return dstack.Run{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run named %q in this project", name)}
	}
	return s.openRuns(rows)[0], nil
}

// RunQuery narrows Runs. Paging is by the last run of the page before.
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

// Runs lists runs that are not Deleted, newest first (id ascending in a tie).
func (s *Store) Runs(ctx context.Context, q RunQuery) ([]dstack.Run, error) {
	if q.Projects != nil && len(q.Projects) == 0 {
		return nil, nil
	}
	var rows []runRow
	query := selectRuns(s.reader, &rows).Where("NOT r.deleted")
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
		last := micros(q.BeforeAt)
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
	if err := query.OrderExpr(order).Limit(int64(limit)).Scan(ctx); err != nil {
		return nil, explain(err)
	}
	return s.openRuns(rows), nil
}

// Names returns the names of all runs of a project that are not Deleted.
func (s *Store) Names(ctx context.Context, p dstack.ProjectID) (map[string]bool, error) {
	var names []string
	err := s.reader.NewRaw("SELECT name FROM runs WHERE project_id = ? AND NOT deleted", string(p)).Scan(ctx, &names)
	if err != nil {
		return nil, explain(err)
	}
	taken := make(map[string]bool, len(names))
	for _, name := range names {
		taken[name] = true
	}
	return taken, nil
}
