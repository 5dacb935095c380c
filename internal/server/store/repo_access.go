package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type repoAccessRow struct {
	bun.BaseModel `bun:"table:repo_access,alias:a"`

	ProjectID string `bun:",pk"`
	Repo      string `bun:",pk"`
	UserID    string `bun:",pk"`
	Access    string
	ChangedAt int64
}

// sealName returns the name of the row for the Sealer.
func (r repoAccessRow) sealName() string {
	return fmt.Sprintf("repo_access/%s/%s/%s", r.ProjectID, r.Repo, r.UserID)
}

// sealedAccess is what a row of repo_access contains in its sealed column.
type sealedAccess struct {
	URL        string `json:"url"`
	Token      string `json:"token,omitempty"`
	PrivateKey string `json:"private_key,omitempty"`
}

// PutRepoWithAccess creates a repo, or replaces the information of an existing one, and
// replaces how it is read for one user.
func (s *Store) PutRepoWithAccess(ctx context.Context, repo dstack.Repo, access dstack.RepoAccess) error {
	row := repoAccessRow{ProjectID: string(repo.Project), Repo: repo.ID, UserID: string(access.User), ChangedAt: toMicros(time.Now())}
	text, err := json.Marshal(sealedAccess{URL: access.URL, Token: access.Token, PrivateKey: access.PrivateKey})
	if err != nil {
		return fmt.Errorf("write the access to repo %q: %w", repo.ID, err)
	}
	if row.Access, err = s.sealer.seal(string(text), row.sealName()); err != nil {
		return err
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := putRepo(ctx, tx, repo); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (project_id, repo, user_id) DO UPDATE").
			Set("access = EXCLUDED.access, changed_at = EXCLUDED.changed_at").Exec(ctx)
		return err
	})
}

// RepoAccess returns how a repo is read for one user; NotFound.
func (s *Store) RepoAccess(ctx context.Context, p dstack.ProjectID, repo string, user dstack.UserID) (dstack.RepoAccess, error) {
	var rows []struct {
		repoAccessRow
		GlobalRole string
	}
	err := s.reader.NewSelect().TableExpr("repo_access AS a").ColumnExpr("a.*, u.global_role").Join("JOIN users AS u ON u.id = a.user_id").
		Where("a.project_id = ? AND a.repo = ? AND a.user_id = ?", string(p), repo, string(user)).Scan(ctx, &rows)
	if err != nil {
		return dstack.RepoAccess{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.RepoAccess{}, &dstack.Error{Kind: dstack.NotFound, Hint: "run dstack init in the clone, and apply again",
			Message: fmt.Sprintf("the user of this run has not registered the git repository %q", repo)}
	}
	text, err := s.sealer.open(rows[0].Access, rows[0].sealName())
	if err != nil {
		return dstack.RepoAccess{}, fmt.Errorf("open the access to repo %q: %w", repo, err)
	}
	var access sealedAccess
	if err := json.Unmarshal([]byte(text), &access); err != nil {
		return dstack.RepoAccess{}, fmt.Errorf("read the access to repo %q: %w", repo, err)
	}
	return dstack.RepoAccess{Project: p, Repo: repo, User: user, IsGlobalAdmin: rows[0].GlobalRole == string(dstack.RoleAdmin),
		URL: access.URL, Token: access.Token, PrivateKey: access.PrivateKey}, nil
}
