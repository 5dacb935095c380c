package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type repoRow struct {
	bun.BaseModel `bun:"table:repos,alias:r"`

	ProjectID string `bun:",pk"`
	ID        string `bun:",pk"`
	Info      string
	CreatedAt int64
}

func (r repoRow) toRepo() dstack.Repo {
	return dstack.Repo{Project: dstack.ProjectID(r.ProjectID), ID: r.ID, Info: []byte(r.Info)}
}

// PutRepo creates a repo, or replaces the information of an existing one.
func (s *Store) PutRepo(ctx context.Context, r dstack.Repo) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error { return putRepo(ctx, tx, r) })
}

func putRepo(ctx context.Context, tx bun.Tx, r dstack.Repo) error {
	row := repoRow{ProjectID: string(r.Project), ID: r.ID, Info: cleanText(string(r.Info)), CreatedAt: toMicros(time.Now())}
	_, err := tx.NewInsert().Model(&row).On("CONFLICT (project_id, id) DO UPDATE").Set("info = EXCLUDED.info").Exec(ctx)
	return err
}

// Repo returns one repo of a project; NotFound.
func (s *Store) Repo(ctx context.Context, p dstack.ProjectID, id string) (dstack.Repo, error) {
	var rows []repoRow
	if err := s.reader.NewSelect().Model(&rows).Where("project_id = ? AND id = ?", string(p), id).Scan(ctx); err != nil {
		return dstack.Repo{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.Repo{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no repo %q in this project", id)}
	}
	return rows[0].toRepo(), nil
}

// Repos returns a project's repos, the oldest first.
func (s *Store) Repos(ctx context.Context, p dstack.ProjectID) ([]dstack.Repo, error) {
	var rows []repoRow
	err := s.reader.NewSelect().Model(&rows).Where("project_id = ?", string(p)).OrderExpr("created_at, id").Scan(ctx)
	return mapRows(rows, repoRow.toRepo), wrapError(err)
}

// DeleteRepos deletes repos, their uploads and the access to them. Unknown ones are ignored. It fails
// with Conflict while an unfinished run has its code from one, because a restart
// would not find it.
func (s *Store) DeleteRepos(ctx context.Context, p dstack.ProjectID, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		var users []string
		err := tx.NewRaw("SELECT name FROM runs WHERE project_id = ? AND repo IN (?) AND live ORDER BY name", string(p), bun.List(ids)).Scan(ctx, &users)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return conflict("stop these runs first", "cannot delete repos: their code is used by %s", joinNames(users))
		}
		if _, err := tx.NewRaw("DELETE FROM codes WHERE project_id = ? AND repo IN (?)", string(p), bun.List(ids)).Exec(ctx); err != nil {
			return err
		}
		_, err = tx.NewRaw("DELETE FROM repos WHERE project_id = ? AND id IN (?)", string(p), bun.List(ids)).Exec(ctx)
		return err
	})
}
