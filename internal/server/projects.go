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

// projectName is narrow because projects are parts of host names and paths.
var projectName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,48}[A-Za-z0-9])?$`)

// projectQuota is how many projects a user who is no global admin may own.
const projectQuota = 10

// projectsOf returns the projects that a caller may see.
func (s *Server) projectsOf(c *request) ([]dstack.Project, error) {
	all, err := s.store.Projects(c.ctx)
	if err != nil || c.isGlobalAdmin() {
		return all, err
	}
	var mine []dstack.Project
	for _, p := range all {
		members, err := s.store.Members(c.ctx, p.ID)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.User.ID == c.user.ID {
				mine = append(mine, p)
			}
		}
	}
	return mine, nil
}

func (s *Server) listProjects(c *request, _ wire.Null) ([]api.Project, error) {
	projects, err := s.projectsOf(c)
	if err != nil {
		return nil, err
	}
	owners, err := s.usersByID(c.ctx)
	if err != nil {
		return nil, err
	}
	wire := make([]api.Project, 0, len(projects))
	for _, p := range projects {
		wire = append(wire, api.Project{ProjectID: p.ID, ProjectName: p.Name, Owner: wireUser(owners[p.Owner]),
			Backends: []api.Backend{}, Members: []api.Member{}})
	}
	return wire, nil
}

func (s *Server) usersByID(ctx context.Context) (map[dstack.UserID]dstack.User, error) {
	users, err := s.store.Users(ctx)
	byID := make(map[dstack.UserID]dstack.User, len(users))
	for _, u := range users {
		byID[u.ID] = u
	}
	return byID, err
}

func (s *Server) createProject(c *request, in api.CreateProject) (api.Project, error) {
	if !projectName.MatchString(in.ProjectName) {
		return api.Project{}, invalidAccount("a project", in.ProjectName)
	}
	if err := s.checkQuota(c); err != nil {
		return api.Project{}, err
	}
	project := dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: in.ProjectName, Owner: c.user.ID, CreatedAt: now()}
	if err := s.store.CreateProject(c.ctx, project); err != nil {
		return api.Project{}, newNameTakenError(err)
	}
	s.tellAccount(c, "project "+project.Name, nil)
	s.broadcast.Notify()
	return s.wireProject(c.ctx, project)
}

func (s *Server) checkQuota(c *request) error {
	if c.isGlobalAdmin() {
		return nil
	}
	all, err := s.store.Projects(c.ctx)
	if err != nil {
		return err
	}
	own := 0
	for _, p := range all {
		if p.Owner == c.user.ID {
			own++
		}
	}
	if own >= projectQuota {
		return wire.Error{Msg: "User project quota exceeded", Err: &dstack.Error{Kind: dstack.Forbidden,
			Message: fmt.Sprintf("you own %d projects already, the most there may be", own),
			Hint:    "delete one, or ask an admin to make it"}}
	}
	return nil
}

func (s *Server) deleteProjects(c *request, in api.DeleteProjects) (wire.Null, error) {
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
		if err := s.mayDelete(c, name); err != nil {
			return wire.Null{}, err
		}
	}
	if left == 0 && len(all) > 0 {
		return wire.Null{}, wire.Error{Msg: "Cannot delete the only project", Err: &dstack.Error{Kind: dstack.Conflict,
			Message: "the only project cannot be deleted", Hint: "make another one first"}}
	}
	err = s.store.DeleteProjects(c.ctx, in.ProjectsNames)
	s.tellAccount(c, "projects "+strings.Join(in.ProjectsNames, ","), err)
	s.broadcast.Notify()
	if err != nil {
		return wire.Null{}, err
	}
	for _, p := range all {
		if !containsFold(in.ProjectsNames, p.Name) {
			continue
		}
		if err := s.logs.RemoveProject(p.Name); err != nil {
			s.log.Warn("the output of a deleted project was not removed", "project", p.Name, "err", err)
		}
	}
	return wire.Null{}, nil
}

// mayDelete lets global admins and a project's own admins delete it. To
// others it looks as if it were not there.
func (s *Server) mayDelete(c *request, name string) error {
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

func containsFold(names []string, name string) bool {
	for _, n := range names {
		if equalFold(n, name) {
			return true
		}
	}
	return false
}

func (s *Server) getProject(c *request, _ wire.Null) (api.Project, error) {
	return s.wireProject(c.ctx, c.project)
}

// setMembers replaces the members. Names that nobody has are an error, so
// that a slip of the pen does not lock somebody out; the reference skips them.
func (s *Server) setMembers(c *request, in api.SetMembers) (api.Project, error) {
	roles := map[dstack.UserID]dstack.Role{}
	var unknown []string
	for _, m := range in.Members {
		user, err := s.store.User(c.ctx, m.Username)
		if dstack.KindOf(err) == dstack.NotFound {
			unknown = append(unknown, quote(m.Username))
			continue
		}
		if err != nil {
			return api.Project{}, err
		}
		roles[user.ID] = m.ProjectRole
	}
	if len(unknown) > 0 {
		return api.Project{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no user " + strings.Join(unknown, ", "),
			Hint: "an admin makes users; the members are as they were"}
	}
	if err := s.store.SetMembers(c.ctx, c.project.ID, roles); err != nil {
		return api.Project{}, err
	}
	s.tellAccount(c, "members of "+c.project.Name, nil)
	s.broadcast.Notify()
	return s.wireProject(c.ctx, c.project)
}

func (s *Server) wireProject(ctx context.Context, p dstack.Project) (api.Project, error) {
	members, err := s.store.Members(ctx, p.ID)
	if err != nil {
		return api.Project{}, err
	}
	owners, err := s.usersByID(ctx)
	if err != nil {
		return api.Project{}, err
	}
	wire := api.Project{ProjectID: p.ID, ProjectName: p.Name, Owner: wireUser(owners[p.Owner]),
		Backends: wireBackends(s.backends, p.Name), Members: []api.Member{}}
	for _, m := range members {
		wire.Members = append(wire.Members, api.Member{User: wireUser(m.User), ProjectRole: m.Role})
	}
	return wire, nil
}

// wireBackends shows a project's backends by their type, once each.
func wireBackends(set *backend.Set, project string) []api.Backend {
	wire := []api.Backend{}
	seen := map[string]bool{}
	for _, key := range set.Of(project) {
		name, _, _ := strings.Cut(key, "-")
		if !seen[name] {
			seen[name] = true
			wire = append(wire, api.Backend{Name: name, Config: map[string]any{"type": name}})
		}
	}
	return wire
}

func (s *Server) listBackendTypes(*request, wire.Null) ([]string, error) {
	return slices.Sorted(maps.Keys(s.backendTypes)), nil
}

// backendValues tells what a backend's configuration may say.
func (s *Server) backendValues(_ *request, in map[string]any) (map[string]any, error) {
	name, _ := in["type"].(string)
	backendType, ok := s.backendTypes[name]
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("not supported yet: backends of type %v", in["type"]),
			Hint: "supported types: " + strings.Join(slices.Sorted(maps.Keys(s.backendTypes)), ", ")}
	}
	values := map[string]any{"type": name}
	maps.Copy(values, backendType.Choices)
	return values, nil
}
