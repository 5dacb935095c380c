package v022

import (
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// User is a user in an answer.
type User struct {
	ID           dstack.UserID   `json:"id"`
	Username     string          `json:"username"`
	GlobalRole   dstack.Role     `json:"global_role"`
	Email        *string         `json:"email"`
	Active       bool            `json:"active"`
	Permissions  UserPermissions `json:"permissions"`
	SSHPublicKey *string         `json:"ssh_public_key"`
}

// UserPermissions is what a user may do outside of projects.
type UserPermissions struct {
	CanCreateProjects bool `json:"can_create_projects"`
}

// UserWithCreds is a user with credentials.
type UserWithCreds struct {
	User
	Creds         api.UserCreds `json:"creds"`
	SSHPrivateKey *string       `json:"ssh_private_key"`
}

// Caller is the caller of users/get_my_user. Clients attach to runs with the key pair that they get there.
type Caller struct {
	User                     api.User
	Token                    string // the one of the request
	SSHPublicKey, SSHPrivate string // empty: the server has none
}

// BuildUser returns a user.
func BuildUser(u api.User) User {
	return User{ID: u.ID, Username: u.Username, GlobalRole: u.GlobalRole, Email: u.Email, Active: true,
		Permissions: UserPermissions{CanCreateProjects: true}}
}

// BuildUserWithCreds returns a user with a new token.
func BuildUserWithCreds(u api.UserWithCreds) UserWithCreds {
	return UserWithCreds{User: BuildUser(u.User), Creds: u.Creds}
}

// BuildUserWithoutCreds returns a user whose token the server does not know.
func BuildUserWithoutCreds(u api.UserWithCreds) User { return BuildUser(u.User) }

// BuildCaller returns the caller.
func BuildCaller(c Caller) UserWithCreds {
	user := UserWithCreds{User: BuildUser(c.User), Creds: api.UserCreds{Token: c.Token}, SSHPrivateKey: nullIfEmpty(c.SSHPrivate)}
	user.SSHPublicKey = nullIfEmpty(c.SSHPublicKey)
	return user
}

// BuildPutUser returns the user that was created or updated.
func BuildPutUser(_ PutUser, u api.User) User { return BuildUser(u) }

// PutUser is the body of users/create and users/update.
type PutUser struct {
	api.PutUser
	Active *bool `json:"active"`
}

// DecodePutUser returns the user. There are no inactive ones.
func DecodePutUser(in PutUser) (api.PutUser, error) {
	if !valueOr(in.Active, true) {
		return in.PutUser, &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: inactive users",
			Hint: "delete the user, or renew the token: dstack user rotate NAME"}
	}
	return in.PutUser, nil
}

// ListQuery is the body of users/list and projects/list. All entries are on one page.
type ListQuery struct {
	IncludeNotJoined *bool        `json:"include_not_joined"` // there are no public projects
	Username         *string      `json:"username"`
	ReturnTotalCount bool         `json:"return_total_count,omitempty"`
	NamePattern      *string      `json:"name_pattern"`
	PrevCreatedAt    *dstack.JSON `json:"prev_created_at"`
	PrevID           *string      `json:"prev_id"`
	Limit            *int         `json:"limit" minimum:"0" maximum:"2000"`
	Ascending        *bool        `json:"ascending"`
}

// IsOptionalBody implements wire.OptionalBody.
func (ListQuery) IsOptionalBody() {}

// DecodeListQuery checks that the query asks for nothing that BuildUsers and BuildProjects do not do.
func DecodeListQuery(in ListQuery) (wire.Null, error) {
	if in.PrevCreatedAt != nil || in.PrevID != nil || in.Username != nil {
		return wire.Null{}, &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: pages of users and projects",
			Hint: "ask for all of them, without prev_id, prev_created_at and username"}
	}
	return wire.Null{}, nil
}

// UserList answers users/list where the client asks for the number of users.
type UserList struct {
	TotalCount int    `json:"total_count"`
	Users      []User `json:"users"`
}

// ProjectList answers projects/list where the client asks for the number of projects.
type ProjectList struct {
	TotalCount int       `json:"total_count"`
	Projects   []Project `json:"projects"`
}

// BuildUsers returns users: a list, or a UserList.
func BuildUsers(in ListQuery, users []api.User) any {
	found := []User{}
	for _, u := range users {
		if in.matches(u.Username) {
			found = append(found, BuildUser(u))
		}
	}
	if page := cutPage(in, found); in.ReturnTotalCount {
		return UserList{len(found), page}
	} else {
		return page
	}
}

// BuildProjects returns projects: a list, or a ProjectList.
func BuildProjects(in ListQuery, projects []api.Project) any {
	found := []Project{}
	for _, p := range projects {
		if in.matches(p.ProjectName) {
			found = append(found, BuildProject(p))
		}
	}
	if page := cutPage(in, found); in.ReturnTotalCount {
		return ProjectList{len(found), page}
	} else {
		return page
	}
}

// matches reports whether a name contains the one that is asked for.
func (q ListQuery) matches(name string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(valueOr(q.NamePattern, "")))
}

func cutPage[E any](q ListQuery, all []E) []E {
	return all[:min(len(all), valueOr(q.Limit, len(all)))]
}

// Project is a project in an answer.
type Project struct {
	ProjectID     dstack.ProjectID `json:"project_id"`
	ProjectName   string           `json:"project_name"`
	Owner         User             `json:"owner"`
	Backends      []api.Backend    `json:"backends"`
	Members       []Member         `json:"members"`
	IsPublic      bool             `json:"is_public"`
	TemplatesRepo *string          `json:"templates_repo"`
}

// Member is a user's membership in a Project.
type Member struct {
	User        User              `json:"user"`
	ProjectRole dstack.Role       `json:"project_role"`
	Permissions MemberPermissions `json:"permissions"`
}

// MemberPermissions is what a member may do.
type MemberPermissions struct {
	CanManageSSHFleets bool `json:"can_manage_ssh_fleets"` // there are none yet
	CanManageSecrets   bool `json:"can_manage_secrets"`
}

// BuildProject returns a project.
func BuildProject(p api.Project) Project {
	project := Project{ProjectID: p.ProjectID, ProjectName: p.ProjectName, Owner: BuildUser(p.Owner), Backends: []api.Backend{}, Members: []Member{}}
	for _, b := range p.Backends {
		name := encodeBackend(b.Name)
		project.Backends = append(project.Backends, api.Backend{Name: name, Config: map[string]any{"type": name}})
	}
	for _, m := range p.Members {
		isAdmin := m.ProjectRole == dstack.RoleAdmin || m.User.GlobalRole == dstack.RoleAdmin
		project.Members = append(project.Members, Member{BuildUser(m.User), m.ProjectRole, MemberPermissions{CanManageSecrets: isAdmin}})
	}
	return project
}

// BuildCreatedProject returns the project that was created.
func BuildCreatedProject(_ CreateProject, p api.Project) Project { return BuildProject(p) }

// CreateProject is the body of projects/create.
type CreateProject struct {
	api.CreateProject
	IsPublic      bool    `json:"is_public,omitempty"`
	TemplatesRepo *string `json:"templates_repo"`
}

// DecodeCreateProject returns the project.
func DecodeCreateProject(in CreateProject) (api.CreateProject, error) {
	if in.IsPublic || in.TemplatesRepo != nil {
		return in.CreateProject, &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: public projects and templates",
			Hint: "create the project without them, and add members: dstack project members add"}
	}
	return in.CreateProject, nil
}

// NoExports answers exports/list.
type NoExports struct {
	Exports  []wire.Null `json:"exports"`
	Warnings []string    `json:"warnings"`
}

// NoImports answers imports/list.
type NoImports struct {
	Imports  []wire.Null `json:"imports"`
	Warnings []string    `json:"warnings"`
}

// BuildNoExports returns an empty list.
func BuildNoExports(wire.Null) NoExports { return NoExports{[]wire.Null{}, []string{}} }

// BuildNoImports returns an empty list.
func BuildNoImports(wire.Null) NoImports { return NoImports{[]wire.Null{}, []string{}} }
