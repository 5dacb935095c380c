package server

import (
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
	return s.finishMemberChange(c, s.store.SetMembers(c.ctx, c.project.ID, roles, needsAdmin(c)))
}

// addMembers adds members to a project, or changes the roles of members. It leaves the
// other members as they are.
func (s *Server) addMembers(c *apiCall, in api.SetMembers) (api.Project, error) {
	roles, err := s.findRoles(c, in.Members)
	if err != nil {
		return api.Project{}, err
	}
	return s.finishMemberChange(c, s.store.ChangeMembers(c.ctx, c.project.ID, roles, nil, needsAdmin(c)))
}

// removeMembers removes members from a project. A name that is not a member's is an error.
func (s *Server) removeMembers(c *apiCall, in api.RemoveMembers) (api.Project, error) {
	members, err := s.store.Members(c.ctx, c.project.ID)
	if err != nil {
		return api.Project{}, err
	}
	ids := map[string]dstack.UserID{}
	for _, m := range members {
		ids[m.User.Name] = m.User.ID
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
	return s.finishMemberChange(c, s.store.ChangeMembers(c.ctx, c.project.ID, nil, removed, needsAdmin(c)))
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

// needsAdmin reports whether a change by the caller must leave an admin in a project: a
// global admin can undo it.
func needsAdmin(c *apiCall) bool { return !c.isGlobalAdmin() }

// finishMemberChange returns the project after a change of its members.
func (s *Server) finishMemberChange(c *apiCall, err error) (api.Project, error) {
	if err != nil {
		return api.Project{}, err
	}
	s.auditAccountChange(c, "members of "+c.project.Name, nil)
	s.broadcast.Notify()
	return s.buildProject(c.ctx, c.project)
}
