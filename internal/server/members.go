package server

import (
	"maps"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// setMembers replaces all members of a project. An unknown user is an error, so
// that a typing mistake does not remove a member; 0.18.10 ignores it.
func (s *Server) setMembers(c *apiCall, in api.SetMembers) (api.Project, error) {
	roles, err := s.findRoles(c, in.Members)
	if err != nil {
		return api.Project{}, err
	}
	if err := s.checkAdminStays(c, roles, true); err != nil {
		return api.Project{}, err
	}
	return s.finishMemberChange(c, s.store.SetMembers(c.ctx, c.project.ID, roles))
}

// addMembers adds members to a project, or changes the roles of members. It leaves the
// other members as they are.
func (s *Server) addMembers(c *apiCall, in api.SetMembers) (api.Project, error) {
	roles, err := s.findRoles(c, in.Members)
	if err != nil {
		return api.Project{}, err
	}
	if err := s.checkAdminStays(c, roles, false); err != nil {
		return api.Project{}, err
	}
	return s.finishMemberChange(c, s.store.ChangeMembers(c.ctx, c.project.ID, roles, nil))
}

// removeMembers removes members from a project. A name that is not a member's is an error.
func (s *Server) removeMembers(c *apiCall, in api.RemoveMembers) (api.Project, error) {
	members, err := s.store.Members(c.ctx, c.project.ID)
	if err != nil {
		return api.Project{}, err
	}
	left := map[dstack.UserID]dstack.Role{}
	ids := map[string]dstack.UserID{}
	for _, m := range members {
		ids[m.User.Name] = m.User.ID
		if !slices.Contains(in.Usernames, m.User.Name) {
			left[m.User.ID] = m.Role
		}
	}
	var removed []dstack.UserID
	var unknown []string
	for _, name := range in.Usernames {
		if id, isMember := ids[name]; isMember {
			removed = append(removed, id)
		} else {
			unknown = append(unknown, quote(name))
		}
	}
	if len(unknown) > 0 {
		return api.Project{}, &dstack.Error{Kind: dstack.NotFound, Hint: "the members were not changed",
			Message: c.project.Name + " has no member " + strings.Join(unknown, ", ")}
	}
	if err := s.checkAdminStays(c, left, true); err != nil {
		return api.Project{}, err
	}
	return s.finishMemberChange(c, s.store.ChangeMembers(c.ctx, c.project.ID, nil, removed))
}

// findRoles returns the roles in a request by user. All unknown users are one error.
func (s *Server) findRoles(c *apiCall, members []api.SetMember) (map[dstack.UserID]dstack.Role, error) {
	roles := map[dstack.UserID]dstack.Role{}
	var unknown []string
	for _, m := range members {
		user, err := s.store.User(c.ctx, m.Username)
		if dstack.KindOf(err) == dstack.NotFound {
			unknown = append(unknown, quote(m.Username))
			continue
		}
		if err != nil {
			return nil, err
		}
		roles[user.ID] = m.ProjectRole
	}
	if len(unknown) > 0 {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: "there is no user " + strings.Join(unknown, ", "),
			Hint: "an admin creates it with: dstack user create NAME; the members were not changed"}
	}
	return roles, nil
}

// checkAdminStays refuses a change of members by which a project would lose its last
// admin, unless the caller is a global admin, who can undo it. isAll tells whether roles
// are all members after the change, or only the changed ones.
func (s *Server) checkAdminStays(c *apiCall, roles map[dstack.UserID]dstack.Role, isAll bool) error {
	if c.isGlobalAdmin() {
		return nil
	}
	after := roles
	if !isAll {
		members, err := s.store.Members(c.ctx, c.project.ID)
		if err != nil {
			return err
		}
		after = map[dstack.UserID]dstack.Role{}
		for _, m := range members {
			after[m.User.ID] = m.Role
		}
		maps.Copy(after, roles)
	}
	for _, role := range after {
		if role == dstack.RoleAdmin {
			return nil
		}
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: c.project.Name + " would have no admin any more",
		Hint: "give another member the role admin first; the members were not changed"}
}

// finishMemberChange returns the project after a change of its members.
func (s *Server) finishMemberChange(c *apiCall, err error) (api.Project, error) {
	if err != nil {
		return api.Project{}, err
	}
	s.auditAccountChange(c, "members of "+c.project.Name, nil)
	s.broadcast.Notify()
	return s.buildProject(c.ctx, c.project)
}
