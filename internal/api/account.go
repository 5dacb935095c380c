package api

import "dstack/internal/dstack"

// User is somebody.
type User struct {
	ID         dstack.UserID `json:"id"`
	Username   string        `json:"username"`
	GlobalRole dstack.Role   `json:"global_role"`
	Email      *string       `json:"email"`
}

// UserWithCreds is somebody with a token. The token is set only when it was
// just made: the server keeps no tokens, and so cannot show one again.
type UserWithCreds struct {
	User
	Creds UserCreds `json:"creds"`
}

// UserCreds is a token.
type UserCreds struct {
	Token string `json:"token"`
}

// Project is a project with what belongs to it.
type Project struct {
	ProjectID   dstack.ProjectID `json:"project_id"`
	ProjectName string           `json:"project_name"`
	Owner       User             `json:"owner"`
	Backends    []Backend        `json:"backends"`
	Members     []Member         `json:"members"`
}

// Backend is a configured backend, without its credentials.
type Backend struct {
	Name   string         `json:"name"`
	Config map[string]any `json:"config"`
}

// Member is a user's place in a project.
type Member struct {
	User        User        `json:"user"`
	ProjectRole dstack.Role `json:"project_role"`
}

// RepoHead is a repo, with RepoCreds (always null) only where they were asked for.
type RepoHead struct {
	RepoID   string      `json:"repo_id"`
	RepoInfo dstack.JSON `json:"repo_info"`
}

// Requests about users, projects and repos.
type (
	Username struct {
		Username string `json:"username"`
	}
	PutUser struct {
		Username   string      `json:"username"`
		GlobalRole dstack.Role `json:"global_role"`
		Email      *string     `json:"email,omitempty"`
	}
	DeleteUsers struct {
		Users []string `json:"users"`
	}
	CreateProject struct {
		ProjectName string `json:"project_name"`
	}
	DeleteProjects struct {
		ProjectsNames []string `json:"projects_names"`
	}
	SetMembers struct {
		Members []SetMember `json:"members"`
	}
	SetMember struct {
		Username    string      `json:"username"`
		ProjectRole dstack.Role `json:"project_role"`
	}
	GetRepo struct {
		RepoID       string `json:"repo_id"`
		IncludeCreds bool   `json:"include_creds,omitempty"`
	}
	InitRepo struct {
		RepoID    string       `json:"repo_id"`
		RepoInfo  dstack.JSON  `json:"repo_info"`
		RepoCreds *dstack.JSON `json:"repo_creds,omitempty"`
	}
	DeleteRepos struct {
		ReposIDs []string `json:"repos_ids"`
	}
)
