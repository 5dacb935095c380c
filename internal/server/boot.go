package server

import (
	"context"
	"path/filepath"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// DefaultProject is the project that the first start makes.
const DefaultProject = "main"

// BootOptions is what a server starts with.
type BootOptions struct {
	Store       *store.Store
	Dir         string // the server's folder
	Token       string // of the admin; empty: made by the first start, then left as it is
	MainProject string // empty: DefaultProject
}

// Booted is what a start found and made.
type Booted struct {
	// Token is the admin's, where this start set it. It cannot be had again.
	Token      string
	First      bool // nothing was there before
	Config     Config
	ConfigFile string
	ConfigMade bool
}

// Boot makes what a server cannot be without: its configuration, the admin
// and the projects. Done twice, it changes nothing.
func Boot(ctx context.Context, o BootOptions) (Booted, error) {
	if o.MainProject == "" {
		o.MainProject = DefaultProject
	}
	b := Booted{ConfigFile: filepath.Join(o.Dir, ConfigName)}
	if err := checkToken(o.Token); err != nil {
		return b, err
	}
	var err error
	if b.Config, b.ConfigMade, err = ReadConfig(o.Dir, o.MainProject); err != nil {
		return b, err
	}
	if err := cleanSpool(o.Dir); err != nil {
		return b, err
	}
	admin, err := o.ensureAdmin(ctx, &b)
	if err != nil {
		return b, err
	}
	return b, o.ensureProjects(ctx, b.Config, admin)
}

// ensureAdmin finds or makes the admin, and gives it the token that was asked for.
func (o BootOptions) ensureAdmin(ctx context.Context, b *Booted) (dstack.User, error) {
	admin, err := o.Store.User(ctx, AdminName)
	if dstack.KindOf(err) == dstack.NotFound {
		return o.firstAdmin(ctx, b)
	}
	if err != nil || o.Token == "" || HashToken(o.Token) == admin.TokenHash {
		return admin, err
	}
	if err := o.Store.SetToken(ctx, admin.ID, HashToken(o.Token)); err != nil {
		return admin, err
	}
	b.Token = o.Token
	return admin, nil
}

func (o BootOptions) firstAdmin(ctx context.Context, b *Booted) (dstack.User, error) {
	token := o.Token
	if token == "" {
		token = newToken()
	}
	admin := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: AdminName, GlobalRole: dstack.RoleAdmin,
		TokenHash: HashToken(token), CreatedAt: now()}
	if err := o.Store.CreateUser(ctx, admin); err != nil {
		return admin, err
	}
	b.Token, b.First = token, true
	return admin, nil
}

// ensureProjects makes the projects that are missing; they belong to the admin.
func (o BootOptions) ensureProjects(ctx context.Context, config Config, admin dstack.User) error {
	names := []string{o.MainProject}
	for _, p := range config.Projects {
		names = append(names, p.Name)
	}
	for _, name := range names {
		_, err := o.Store.Project(ctx, name)
		if dstack.KindOf(err) == dstack.NotFound {
			err = o.Store.CreateProject(ctx, dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: name,
				Owner: admin.ID, CreatedAt: now()})
		}
		if err != nil && dstack.KindOf(err) != dstack.Conflict { // another server made it in between
			return err
		}
	}
	return nil
}
