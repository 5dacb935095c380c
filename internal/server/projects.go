package server

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// projectNamePattern matches valid names of projects, which become parts of host names
// and file paths.
var projectNamePattern = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,48}[A-Za-z0-9])?$`)

// maxOwnedProjects is how many projects a user who is not a global admin may
// own.
const maxOwnedProjects = 10

// listVisibleProjects returns the projects that the caller may see.
func (s *Server) listVisibleProjects(c *apiCall) ([]dstack.Project, error) {
	if c.isGlobalAdmin() {
		return s.store.Projects(c.ctx)
	}
	return s.store.ProjectsOf(c.ctx, c.user.ID)
}

func (s *Server) listProjects(c *apiCall, _ wire.Null) ([]api.Project, error) {
	projects, err := s.listVisibleProjects(c)
	if err != nil {
		return nil, err
	}
	owners, err := s.mapUsersByID(c.ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.Project, 0, len(projects))
	for _, p := range projects {
		list = append(list, api.Project{ProjectID: p.ID, ProjectName: p.Name, Owner: buildUser(owners[p.Owner]),
			Backends: []api.Backend{}, Members: []api.Member{}})
	}
	return list, nil
}

// mapUsersByID returns all users by ID.
func (s *Server) mapUsersByID(ctx context.Context) (map[dstack.UserID]dstack.User, error) {
	users, err := s.store.Users(ctx)
	byID := make(map[dstack.UserID]dstack.User, len(users))
	for _, u := range users {
		byID[u.ID] = u
	}
	return byID, err
}

func (s *Server) createProject(c *apiCall, in api.CreateProject) (api.Project, error) {
	if !projectNamePattern.MatchString(in.ProjectName) {
		return api.Project{}, newInvalidNameError("a project", in.ProjectName,
			"use at most 50 letters, digits, dashes and underscores; begin and end with a letter or digit")
	}
	if err := s.checkProjectQuota(c); err != nil {
		return api.Project{}, err
	}
	if err := s.checkProjectName(c, in.ProjectName); err != nil {
		return api.Project{}, err
	}
	project := dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: in.ProjectName, Owner: c.user.ID,
		CreatedAt: now()}
	if err := s.store.CreateProject(c.ctx, project); err != nil {
		return api.Project{}, toNameTakenError(err)
	}
	s.auditAccountChange(c, "project "+project.Name, nil)
	s.broadcast.Notify()
	return s.buildProject(c.ctx, project)
}

// checkProjectQuota returns an error if the caller may not own another project.
func (s *Server) checkProjectQuota(c *apiCall) error {
	if c.isGlobalAdmin() {
		return nil
	}
	all, err := s.store.Projects(c.ctx)
	if err != nil {
		return err
	}
	owned := 0
	for _, p := range all {
		if p.Owner == c.user.ID {
			owned++
		}
	}
	if owned >= maxOwnedProjects {
		return wire.Error{Msg: "User project quota exceeded", Err: &dstack.Error{Kind: dstack.Forbidden,
			Message: fmt.Sprintf("you already own %d projects, the maximum", owned),
			Hint:    "delete one, or ask an admin to create the project"}}
	}
	return nil
}

// deleteProjects deletes projects that have no unfinished run, and their logs.
// It never deletes the last project.
func (s *Server) deleteProjects(c *apiCall, in api.DeleteProjects) (wire.Null, error) {
	all, err := s.store.Projects(c.ctx)
	if err != nil {
		return wire.Null{}, err
	}
	left := len(all)
	for _, p := range all {
		if containsFold(in.ProjectsNames, p.Name) {
			left--
		}
	}
	for _, name := range in.ProjectsNames {
		if err := s.authorizeDeletion(c, name); err != nil {
			return wire.Null{}, err
		}
	}
	if left == 0 && len(all) > 0 {
		return wire.Null{}, wire.Error{Msg: "Cannot delete the only project", Err: &dstack.Error{Kind: dstack.Conflict,
			Message: "the only project cannot be deleted", Hint: "create another one first"}}
	}
	err = s.store.DeleteProjects(c.ctx, in.ProjectsNames)
	s.auditAccountChange(c, "projects "+strings.Join(in.ProjectsNames, ","), err)
	s.broadcast.Notify()
	if err != nil {
		return wire.Null{}, err
	}
	for _, p := range all {
		if !containsFold(in.ProjectsNames, p.Name) {
			continue
		}
		if err := s.removeOutput(c.ctx, p.Name, ""); err != nil {
			s.log.Warn("the logs of a deleted project were not removed", "project", p.Name, "err", err)
		}
		if s.repos == nil {
			continue
		}
		if err := s.repos.ForgetProject(c.ctx, p.ID); err != nil {
			s.log.Warn("the fetched commits of a deleted project were not removed", "project", p.Name, "err", err)
		}
	}
	return wire.Null{}, nil
}

// authorizeDeletion returns an error unless the caller is a global admin or an
// admin of the project. The error is the same for a project that does not
// exist.
func (s *Server) authorizeDeletion(c *apiCall, name string) error {
	refused := &dstack.Error{Kind: dstack.Forbidden, Message: "you may not delete the project " + quote(name),
		Hint: "ask one of its admins"}
	project, err := s.store.Project(c.ctx, name)
	if dstack.KindOf(err) == dstack.NotFound {
		return refused
	}
	if err != nil || c.isGlobalAdmin() {
		return err
	}
	members, err := s.store.Members(c.ctx, project.ID)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.User.ID == c.user.ID && m.Role == dstack.RoleAdmin {
			return nil
		}
	}
	return refused
}

// containsFold reports whether names contains name, ignoring case.
func containsFold(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func (s *Server) getProject(c *apiCall, _ wire.Null) (api.Project, error) {
	return s.buildProject(c.ctx, c.project)
}

func (s *Server) buildProject(ctx context.Context, p dstack.Project) (api.Project, error) {
	members, err := s.store.Members(ctx, p.ID)
	if err != nil {
		return api.Project{}, err
	}
	owners, err := s.mapUsersByID(ctx)
	if err != nil {
		return api.Project{}, err
	}
	project := api.Project{ProjectID: p.ID, ProjectName: p.Name, Owner: buildUser(owners[p.Owner]),
		Backends: buildBackends(s.backends, p.Name), Members: []api.Member{}}
	for _, m := range members {
		project.Members = append(project.Members, api.Member{User: buildUser(m.User), ProjectRole: m.Role})
	}
	return project, nil
}

// buildBackends returns the types of a project's backends, each once.
func buildBackends(set *backend.Set, project string) []api.Backend {
	list := []api.Backend{}
	seen := map[string]bool{}
	for _, key := range set.Of(project) {
		name, _, _ := strings.Cut(key, "-")
		if !seen[name] {
			seen[name] = true
			list = append(list, api.Backend{Name: name, Config: map[string]any{"type": name}})
		}
	}
	return list
}

func (s *Server) listBackendTypes(*apiCall, wire.Null) ([]string, error) {
	return slices.Sorted(maps.Keys(s.backendTypes)), nil
}

// getBackendValues returns the values that a backend's configuration may have.
func (s *Server) getBackendValues(_ *apiCall, in map[string]any) (map[string]any, error) {
	name, _ := in["type"].(string)
	backendType, ok := s.backendTypes[name]
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported,
			Message: fmt.Sprintf("not supported yet: backends of type %v", in["type"]),
			Hint:    "supported types: " + strings.Join(slices.Sorted(maps.Keys(s.backendTypes)), ", ")}
	}
	values := map[string]any{"type": name}
	maps.Copy(values, backendType.Choices)
	return values, nil
}
