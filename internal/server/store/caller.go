package store

import (
	"context"
	"strings"

	"dstack/internal/dstack"
)

// Caller is the user of a token, and what the user is in one project.
type Caller struct {
	User     dstack.User
	Project  *dstack.Project // nil: there is no such project
	IsMember bool
	Role     dstack.Role // in the project
}

// Caller returns the user whose token has a hash, and the user's role in the project of a name, ignoring case; NotFound if
// there is no such user. It is one query, because every call to the API needs it, and nothing of it may be cached: a token
// or a membership can end at any time, also by another server.
func (s *Store) Caller(ctx context.Context, tokenHash, project string) (Caller, error) {
	var rows []struct {
		userRow
		ProjectID        string
		Project          string
		ProjectOwner     string
		ProjectCreatedAt int64
		Role             string // empty: the user is not a member
	}
	err := s.reader.NewRaw(`SELECT u.id, u.name, u.global_role, u.email, u.token_hash, u.created_at,
		COALESCE(p.id, '') AS project_id, COALESCE(p.name, '') AS project, COALESCE(p.owner, '') AS project_owner,
		COALESCE(p.created_at, 0) AS project_created_at, COALESCE(m.role, '') AS role
		FROM users AS u LEFT JOIN projects AS p ON p.name_lower = ? LEFT JOIN members AS m ON m.project_id = p.id AND m.user_id = u.id
		WHERE u.token_hash = ?`, strings.ToLower(project), tokenHash).Scan(ctx, &rows)
	if err != nil {
		return Caller{}, wrapError(err)
	}
	if len(rows) == 0 {
		return Caller{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no user with this token"}
	}
	row := rows[0]
	caller := Caller{User: row.toUser(), IsMember: row.Role != "", Role: dstack.Role(row.Role)}
	if row.ProjectID != "" {
		caller.Project = &dstack.Project{ID: dstack.ProjectID(row.ProjectID), Name: row.Project,
			Owner: dstack.UserID(row.ProjectOwner), CreatedAt: fromMicros(row.ProjectCreatedAt)}
	}
	return caller, nil
}
