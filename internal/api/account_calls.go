package api

import (
	"context"
	"time"
)

// IsAccepted reports whether a dstack server answers within a time and accepts the
// token. It does not retry.
func (c *Client) IsAccepted(ctx context.Context, limit time.Duration) bool {
	var user User
	return c.call(ctx, "/api/users/get_my_user", struct{}{}, &user, limit) == nil && user.Username != ""
}

// Users returns all users. Callers other than global admins get only themselves.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return readWithRetry[[]User](ctx, c, "/api/users/list", struct{}{}, callTimeout)
}

// CreateUser creates a user. RefreshToken makes the first token that is known.
func (c *Client) CreateUser(ctx context.Context, user PutUser) (User, error) {
	var created User
	err := c.callOnce(ctx, "/api/users/create", user, &created)
	return created, err
}

// RefreshToken ends a user's token and returns a new one. Nothing else shows it.
func (c *Client) RefreshToken(ctx context.Context, name string) (token string, err error) {
	var user UserWithCreds
	err = c.callOnce(ctx, "/api/users/refresh_token", Username{Username: name}, &user)
	return user.Creds.Token, err
}

// DeleteUsers deletes users; see DeleteUsers.
func (c *Client) DeleteUsers(ctx context.Context, users DeleteUsers) error {
	return c.callOnce(ctx, "/api/users/delete", users, nil)
}

// Projects returns the projects that the caller may see, without their members and backends.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	return readWithRetry[[]Project](ctx, c, "/api/projects/list", struct{}{}, callTimeout)
}

// CreateProject creates a project of the caller.
func (c *Client) CreateProject(ctx context.Context, name string) (Project, error) {
	var created Project
	err := c.callOnce(ctx, "/api/projects/create", CreateProject{ProjectName: name}, &created)
	return created, err
}

// DeleteProjects deletes projects that have no unfinished run.
func (c *Client) DeleteProjects(ctx context.Context, names []string) error {
	return c.callOnce(ctx, "/api/projects/delete", DeleteProjects{ProjectsNames: names}, nil)
}

// SetMembers replaces all members of a project.
func (c *Client) SetMembers(ctx context.Context, project string, members []SetMember) (Project, error) {
	return c.changeMembers(ctx, PathSetMembers, project, SetMembers{Members: members})
}

// AddMembers adds members to a project, or changes the roles of members.
func (c *Client) AddMembers(ctx context.Context, project string, members []SetMember) (Project, error) {
	return c.changeMembers(ctx, PathAddMembers, project, SetMembers{Members: members})
}

// RemoveMembers removes members from a project.
func (c *Client) RemoveMembers(ctx context.Context, project string, names []string) (Project, error) {
	return c.changeMembers(ctx, PathRemoveMembers, project, RemoveMembers{Usernames: names})
}

func (c *Client) changeMembers(ctx context.Context, path, project string, body any) (Project, error) {
	var changed Project
	err := c.callOnce(ctx, projectPath(path, project), body, &changed)
	return changed, err
}
