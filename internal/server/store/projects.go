package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type projectRow struct {
	bun.BaseModel `bun:"table:projects,alias:p"`

	ID        string `bun:",pk"`
	Name      string
	NameLower string
	Owner     string
	CreatedAt int64
}

func (r projectRow) toProject() dstack.Project {
	return dstack.Project{ID: dstack.ProjectID(r.ID), Name: r.Name, Owner: dstack.UserID(r.Owner), CreatedAt: fromMicros(r.CreatedAt)}
}

type memberRow struct {
	bun.BaseModel `bun:"table:members,alias:m"`

	ProjectID string `bun:",pk"`
	UserID    string `bun:",pk"`
	Role      string
}

// CreateProject inserts a project with its owner as an admin member; Conflict when
// the name is taken, ignoring case.
func (s *Store) CreateProject(ctx context.Context, p dstack.Project) error {
	row := projectRow{ID: string(p.ID), Name: p.Name, NameLower: strings.ToLower(p.Name), Owner: string(p.Owner), CreatedAt: toMicros(p.CreatedAt)}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return conflict("choose another name", "a project named %q exists already", p.Name)
		}
		member := memberRow{ProjectID: row.ID, UserID: row.Owner, Role: string(dstack.RoleAdmin)}
		_, err = tx.NewInsert().Model(&member).Exec(ctx)
		return err
	})
}

// DeleteProjects deletes all of the projects with everything in them, or none.
// Unknown names are ignored. It fails with Conflict while one has unfinished
// runs.
func (s *Store) DeleteProjects(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if s.kind == postgres { // keeps out submissions meanwhile
			if _, err := tx.NewRaw("SELECT id FROM projects WHERE name_lower IN (?) FOR UPDATE", bun.List(lower)).Exec(ctx); err != nil {
				return err
			}
		}
		var live []string
		err := tx.NewRaw(`SELECT p.name || '/' || r.name FROM runs AS r JOIN projects AS p ON p.id = r.project_id
			WHERE p.name_lower IN (?) AND r.live ORDER BY p.name, r.name`, bun.List(lower)).Scan(ctx, &live)
		if err != nil {
			return err
		}
		if len(live) > 0 {
			return conflict("stop these runs first: dstack stop NAME --project PROJECT",
				"cannot delete projects: still running: %s", strings.Join(live, ", "))
		}
		if err := checkNoGateways(ctx, tx, lower); err != nil {
			return err
		}
		if err := checkNoVolumes(ctx, tx, lower); err != nil {
			return err
		}
		if err := checkNoCloudFleets(ctx, tx, lower); err != nil {
			return err
		}
		if err := releaseMachines(ctx, tx, lower, time.Now()); err != nil {
			return err
		}
		_, err = tx.NewRaw("DELETE FROM projects WHERE name_lower IN (?)", bun.List(lower)).Exec(ctx)
		return err
	})
}

// Projects returns all projects, the oldest first.
func (s *Store) Projects(ctx context.Context) ([]dstack.Project, error) {
	var rows []projectRow
	err := s.reader.NewSelect().Model(&rows).OrderExpr("created_at, name").Scan(ctx)
	return mapRows(rows, projectRow.toProject), wrapError(err)
}

// ProjectsOf returns the projects that a user is a member of, the oldest first.
func (s *Store) ProjectsOf(ctx context.Context, user dstack.UserID) ([]dstack.Project, error) {
	var rows []projectRow
	err := s.reader.NewSelect().Model(&rows).Join("JOIN members AS m ON m.project_id = p.id").Where("m.user_id = ?", string(user)).
		OrderExpr("p.created_at, p.name").Scan(ctx)
	return mapRows(rows, projectRow.toProject), wrapError(err)
}

// Project returns the project of a name, ignoring case; NotFound.
func (s *Store) Project(ctx context.Context, name string) (dstack.Project, error) {
	var rows []projectRow
	if err := s.reader.NewSelect().Model(&rows).Where("name_lower = ?", strings.ToLower(name)).Scan(ctx); err != nil {
		return dstack.Project{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.Project{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no project named %q", name)}
	}
	return rows[0].toProject(), nil
}

// Members returns a project's members, the oldest user first.
func (s *Store) Members(ctx context.Context, p dstack.ProjectID) ([]dstack.Member, error) {
	var rows []struct {
		userRow
		Role string
	}
	err := s.reader.NewRaw(`SELECT u.id, u.name, u.global_role, u.email, u.token_hash, u.created_at, m.role
		FROM members AS m JOIN users AS u ON u.id = m.user_id WHERE m.project_id = ? ORDER BY u.created_at, u.name`, string(p)).Scan(ctx, &rows)
	if err != nil {
		return nil, wrapError(err)
	}
	members := make([]dstack.Member, len(rows))
	for i, row := range rows {
		members[i] = dstack.Member{User: row.toUser(), Role: dstack.Role(row.Role)}
	}
	return members, nil
}

// SetMembers replaces the members of a project. It fails with NotFound if the
// project or a user no longer exists, and with Conflict if needsAdmin is set and
// none of the members is an admin.
func (s *Store) SetMembers(ctx context.Context, p dstack.ProjectID, roles map[dstack.UserID]dstack.Role, needsAdmin bool) error {
	rows := make([]memberRow, 0, len(roles))
	for id, role := range roles {
		rows = append(rows, memberRow{ProjectID: string(p), UserID: string(id), Role: string(role)})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].UserID < rows[j].UserID })
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil { // or two sets at once would be merged
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM members WHERE project_id = ?", string(p)).Exec(ctx); err != nil {
			return err
		}
		for _, row := range rows {
			if err := insertMember(ctx, tx, row); err != nil {
				return err
			}
		}
		return checkHasAdmin(ctx, tx, p, needsAdmin)
	})
}

// ChangeMembers sets the roles of some members of a project, who may be new, and removes
// others. It leaves all other members as they are. It fails with NotFound if the project
// or a user no longer exists, and with Conflict if needsAdmin is set and no admin is left.
func (s *Store) ChangeMembers(
	ctx context.Context, p dstack.ProjectID, roles map[dstack.UserID]dstack.Role, removed []dstack.UserID, needsAdmin bool,
) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		for _, id := range removed {
			if _, err := tx.NewRaw("DELETE FROM members WHERE project_id = ? AND user_id = ?", string(p), string(id)).Exec(ctx); err != nil {
				return err
			}
		}
		for _, id := range slices.Sorted(maps.Keys(roles)) {
			if err := putMember(ctx, tx, memberRow{ProjectID: string(p), UserID: string(id), Role: string(roles[id])}); err != nil {
				return err
			}
		}
		return checkHasAdmin(ctx, tx, p, needsAdmin)
	})
}

// checkHasAdmin returns an error of kind Conflict if a project needs an admin and has
// none. The project must be locked: two admins may remove each other at the same time.
func checkHasAdmin(ctx context.Context, tx bun.Tx, p dstack.ProjectID, needsAdmin bool) error {
	if !needsAdmin {
		return nil
	}
	var without []string
	err := tx.NewRaw(`SELECT p.name FROM projects AS p WHERE p.id = ?
		AND NOT EXISTS (SELECT 1 FROM members AS m WHERE m.project_id = p.id AND m.role = ?)`,
		string(p), string(dstack.RoleAdmin)).Scan(ctx, &without)
	if err == nil && len(without) > 0 {
		err = conflict("give another member the role admin first; the members were not changed",
			"%s would have no admin any more", without[0])
	}
	return err
}

// putMember inserts a member, or replaces the role of one; NotFound.
func putMember(ctx context.Context, tx bun.Tx, row memberRow) error {
	if _, err := tx.NewRaw("DELETE FROM members WHERE project_id = ? AND user_id = ?", row.ProjectID, row.UserID).Exec(ctx); err != nil {
		return err
	}
	return insertMember(ctx, tx, row)
}

// insertMember inserts a member; NotFound.
func insertMember(ctx context.Context, tx bun.Tx, row memberRow) error {
	n, err := rowsAffected(tx.NewRaw(`INSERT INTO members (project_id, user_id, role)
		SELECT p.id, u.id, ? FROM projects AS p, users AS u WHERE p.id = ? AND u.id = ?`, row.Role, row.ProjectID, row.UserID).Exec(ctx))
	if err == nil && n == 0 {
		err = &dstack.Error{Kind: dstack.NotFound, Message: "cannot set the members: the project or a user is not there any more"}
	}
	return err
}
