package api

import "dstack/internal/dstack"

// User is a user without credentials. It answers users/get_my_user,
// users/create and users/update; users/list answers a list of it.
type User struct {
	ID         dstack.UserID `json:"id"`
	Username   string        `json:"username"`
	GlobalRole dstack.Role   `json:"global_role"`
	Email      *string       `json:"email"`
}

// UserWithCreds answers users/get_user and users/refresh_token. The token is
// set only in the answer of users/refresh_token: the server stores hashes of
// tokens and cannot show a token again.
type UserWithCreds struct {
	User
	Creds UserCreds `json:"creds"`
}

// UserCreds are the credentials of a user.
type UserCreds struct {
	Token string `json:"token"`
}

// Project answers projects/create, projects/{project_name}/get and
// projects/{project_name}/set_members; projects/list answers a list of it.
type Project struct {
	ProjectID   dstack.ProjectID `json:"project_id"`
	ProjectName string           `json:"project_name"`
	Owner       User             `json:"owner"`
	Backends    []Backend        `json:"backends"`
	Members     []Member         `json:"members"`
}

// Backend is a configured backend of a Project, without its credentials.
type Backend struct {
	Name   string         `json:"name"`
	Config map[string]any `json:"config"`
}

// Member is a user's membership in a Project.
type Member struct {
	User        User        `json:"user"`
	ProjectRole dstack.Role `json:"project_role"`
}

// RepoHead answers repos/get; repos/list answers a list of it.
type RepoHead struct {
	RepoID   string      `json:"repo_id"`
	RepoInfo dstack.JSON `json:"repo_info"`
}

// Requests about users.
type (
	// Username is the body of users/get_user and users/refresh_token.
	Username struct {
		Username string `json:"username"`
	}
	// PutUser is the body of users/create and users/update.
	PutUser struct {
		Username   string      `json:"username" pattern:"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,59}$"`
		GlobalRole dstack.Role `json:"global_role"`
		Email      *string     `json:"email,omitempty"`
	}
	// DeleteUsers is the body of users/delete.
	DeleteUsers struct {
		Users []string `json:"users"`
		// NewOwner gets the projects that the users own, and becomes an admin of them.
		// Without it, a user who owns a project is not deleted. 0.18.10 does not send it.
		NewOwner string `json:"new_owner,omitempty"`
	}
)

// Requests about projects.
type (
	// CreateProject is the body of projects/create.
	CreateProject struct {
		ProjectName string `json:"project_name" pattern:"^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,48}[A-Za-z0-9])?$"`
	}
	// DeleteProjects is the body of projects/delete.
	DeleteProjects struct {
		ProjectsNames []string `json:"projects_names"`
	}
	// SetMembers is the body of projects/{project_name}/set_members. It
	// replaces all members of the project.
	SetMembers struct {
		Members []SetMember `json:"members"`
	}
	// SetMember is one member in SetMembers.
	SetMember struct {
		Username    string      `json:"username"`
		ProjectRole dstack.Role `json:"project_role"`
	}
	// RemoveMembers is the body of projects/{project_name}/remove_members.
	RemoveMembers struct {
		Usernames []string `json:"usernames"`
	}
)

// Paths of the calls about members. 0.18.10 knows only PathSetMembers. The body of
// PathAddMembers is a SetMembers, too; it changes no other member.
const (
	PathSetMembers    = "/api/projects/{project_name}/set_members"
	PathAddMembers    = "/api/projects/{project_name}/add_members"
	PathRemoveMembers = "/api/projects/{project_name}/remove_members"
)

// Requests about repos.
type (
	// GetRepo is the body of repos/get. With IncludeCreds the answer has the
	// key repo_creds, which is always null.
	GetRepo struct {
		RepoID       string `json:"repo_id"`
		IncludeCreds bool   `json:"include_creds,omitempty"`
	}
	// InitRepo is the body of repos/init. RepoCreds says where a git repository is and how
	// it is read; no answer has it.
	InitRepo struct {
		RepoID    string       `json:"repo_id" minLength:"1" maxLength:"200"`
		RepoInfo  dstack.JSON  `json:"repo_info"`
		RepoCreds *dstack.JSON `json:"repo_creds,omitempty"`
	}
	// DeleteRepos is the body of repos/delete.
	DeleteRepos struct {
		ReposIDs []string `json:"repos_ids"`
	}
)
