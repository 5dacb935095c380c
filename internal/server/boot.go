package server

import (
	"context"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// DefaultProject is the name of the main project.
const DefaultProject = "main"

// BootOptions configures Boot.
type BootOptions struct {
	Store       *store.Store
	Dir         string // the server's folder
	Config      Config // names the projects that must exist
	Token       string // the admin's token; empty: keep the stored one, or generate one for a new admin
	MainProject string // empty: DefaultProject
}

// BootResult is what Boot changed.
type BootResult struct {
	Token      string // the admin's new token, which is not stored and cannot be read again; empty: unchanged
	FirstStart bool   // the admin was created
	IsChosen   bool   // the operator chose Token
	OldHash    string // of the token that Token replaced; empty: none
}

// Boot creates what a server needs and does not have yet: the admin and the projects of the configuration. A second
// call changes nothing.
func Boot(ctx context.Context, o BootOptions) (BootResult, error) {
	if o.MainProject == "" {
		o.MainProject = DefaultProject
	}
	var result BootResult
	if err := CheckToken("the admin's token", o.Token); err != nil {
		return result, err
	}
	if err := cleanSpool(o.Dir); err != nil {
		return result, err
	}
	admin, err := o.ensureAdmin(ctx, &result)
	if err != nil {
		return result, err
	}
	return result, o.ensureProjects(ctx, admin)
}

// ensureAdmin returns the admin, and creates it if necessary. A configured token
// replaces the admin's token.
func (o BootOptions) ensureAdmin(ctx context.Context, result *BootResult) (dstack.User, error) {
	admin, err := o.Store.User(ctx, AdminName)
	if dstack.KindOf(err) == dstack.NotFound {
		return o.createAdmin(ctx, result)
	}
	if err != nil || o.Token == "" || HashToken(o.Token) == admin.TokenHash {
		return admin, err
	}
	if err := o.Store.SetToken(ctx, admin.ID, HashToken(o.Token)); err != nil {
		return admin, err
	}
	result.Token, result.IsChosen, result.OldHash = o.Token, true, admin.TokenHash
	return admin, nil
}

func (o BootOptions) createAdmin(ctx context.Context, result *BootResult) (dstack.User, error) {
	token := o.Token
	if token == "" {
		token = newToken()
	}
	admin := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: AdminName, GlobalRole: dstack.RoleAdmin,
		TokenHash: HashToken(token), CreatedAt: now()}
	if err := o.Store.CreateUser(ctx, admin); err != nil {
		return admin, err
	}
	result.Token, result.FirstStart, result.IsChosen = token, true, o.Token != ""
	return admin, nil
}

// ensureProjects creates the missing projects. The admin owns them.
func (o BootOptions) ensureProjects(ctx context.Context, admin dstack.User) error {
	names := []string{o.MainProject}
	for _, p := range o.Config.Projects {
		names = append(names, p.Name)
	}
	for _, name := range names {
		_, err := o.Store.Project(ctx, name)
		if dstack.KindOf(err) == dstack.NotFound {
			err = o.Store.CreateProject(ctx, dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: name,
				Owner: admin.ID, CreatedAt: now()})
		}
		if err != nil && dstack.KindOf(err) != dstack.Conflict { // another server created it in the meantime
			return err
		}
	}
	return nil
}
