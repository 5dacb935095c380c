package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type userRow struct {
	bun.BaseModel `bun:"table:users,alias:u"`

	ID         string `bun:",pk"`
	Name       string
	GlobalRole string
	Email      string
	TokenHash  string
	CreatedAt  int64
}

func (r userRow) toUser() dstack.User {
	return dstack.User{
		ID: dstack.UserID(r.ID), Name: r.Name, GlobalRole: dstack.Role(r.GlobalRole),
		Email: r.Email, TokenHash: r.TokenHash, CreatedAt: fromMicros(r.CreatedAt),
	}
}

// CreateUser inserts a user with the hash of its token; Conflict when the name is
// taken.
func (s *Store) CreateUser(ctx context.Context, u dstack.User) error {
	row := userRow{
		ID: string(u.ID), Name: u.Name, GlobalRole: string(u.GlobalRole),
		Email: cleanText(u.Email), TokenHash: u.TokenHash, CreatedAt: toMicros(u.CreatedAt),
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err == nil && n == 0 {
			return conflict("choose another name", "a user named %q exists already", u.Name)
		}
		return err
	})
}

// UpdateUser saves role and e-mail; NotFound.
func (s *Store) UpdateUser(ctx context.Context, u dstack.User) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewRaw("UPDATE users SET global_role = ?, email = ? WHERE id = ?",
			string(u.GlobalRole), cleanText(u.Email), string(u.ID)).Exec(ctx))
		return checkUserFound(n, err, u.Name)
	})
}

func checkUserFound(n int64, err error, name string) error {
	if err == nil && n == 0 {
		return userNotFound(name)
	}
	return err
}

func userNotFound(name string) error {
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no user named %q", name)}
}

// DeleteUsers deletes all of the users or none. Unknown names are ignored. Their
// projects go to the user heir, who becomes an admin of them. Without an heir it fails
// with Conflict if one of the users owns a project.
func (s *Store) DeleteUsers(ctx context.Context, names []string, heir dstack.UserID) error {
	if len(names) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		var owned []struct{ ID, Username, Project string }
		err := tx.NewRaw(`SELECT p.id, u.name AS username, p.name AS project FROM users AS u JOIN projects AS p ON p.owner = u.id
			WHERE u.name IN (?) ORDER BY u.name, p.name`, bun.List(names)).Scan(ctx, &owned)
		if err != nil {
			return err
		}
		lines := make([]string, len(owned))
		for i, o := range owned {
			lines[i] = o.Username + " owns " + o.Project
			if heir == "" {
				continue
			}
			if err := bequeathProject(ctx, tx, o.ID, string(heir)); err != nil {
				return err
			}
		}
		if len(owned) > 0 && heir == "" {
			return conflict("give the projects to another user with --new-owner NAME, or delete them first",
				"cannot delete users: %s", strings.Join(lines, ", "))
		}
		const theirs = "FROM archives WHERE user_id IN (SELECT id FROM users WHERE name IN (?))"
		if s.kind == postgres { // waits for submissions that take them
			if _, err := tx.NewRaw("SELECT id "+theirs+" FOR UPDATE", bun.List(names)).Exec(ctx); err != nil {
				return err
			}
		}
		_, err = tx.NewRaw("DELETE "+theirs+" AND NOT "+isNeeded, bun.List(names)).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewRaw("DELETE FROM users WHERE name IN (?)", bun.List(names)).Exec(ctx)
		return err
	})
}

// bequeathProject makes a user the owner and an admin of a project.
func bequeathProject(ctx context.Context, tx bun.Tx, project, heir string) error {
	if _, err := tx.NewRaw("UPDATE projects SET owner = ? WHERE id = ?", heir, project).Exec(ctx); err != nil {
		return err
	}
	return putMember(ctx, tx, memberRow{ProjectID: project, UserID: heir, Role: string(dstack.RoleAdmin)})
}

// Users returns all users, the oldest first.
func (s *Store) Users(ctx context.Context) ([]dstack.User, error) {
	var rows []userRow
	err := s.reader.NewSelect().Model(&rows).OrderExpr("created_at, name").Scan(ctx)
	return mapRows(rows, userRow.toUser), wrapError(err)
}

// User returns the user of a name; NotFound.
func (s *Store) User(ctx context.Context, name string) (dstack.User, error) {
	return s.findUser(ctx, "name = ?", name, userNotFound(name))
}

// UserByToken returns the user whose token has this hash; NotFound.
func (s *Store) UserByToken(ctx context.Context, h string) (dstack.User, error) {
	return s.findUser(ctx, "token_hash = ?", h, &dstack.Error{Kind: dstack.NotFound, Message: "there is no user with this token"})
}

func (s *Store) findUser(ctx context.Context, where, value string, missing error) (dstack.User, error) {
	var rows []userRow
	if err := s.reader.NewSelect().Model(&rows).Where(where, value).Scan(ctx); err != nil {
		return dstack.User{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.User{}, missing
	}
	return rows[0].toUser(), nil
}

// SetToken replaces a user's token, at once; NotFound.
func (s *Store) SetToken(ctx context.Context, id dstack.UserID, h string) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewRaw("UPDATE users SET token_hash = ? WHERE id = ?", h, string(id)).Exec(ctx))
		return checkUserFound(n, err, string(id))
	})
}

// mapRows converts rows one by one.
func mapRows[Row, Noun any](rows []Row, noun func(Row) Noun) []Noun {
	out := make([]Noun, len(rows))
	for i, row := range rows {
		out[i] = noun(row)
	}
	return out
}
