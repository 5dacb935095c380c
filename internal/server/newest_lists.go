package server

import (
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
)

// listNothing is the handler of lists that are always empty.
func (s *Server) listNothing(*apiCall, wire.Null) (wire.Null, error) { return wire.Null{}, nil }

// listSharedMachines lists the machines that replicas share.
func (s *Server) listSharedMachines(c *apiCall, _ wire.Null) ([]api.Instance, error) {
	return s.listMachines(c)
}

// findEvents lists the events of the runs that the caller may see.
func (s *Server) findEvents(c *apiCall, in v022.EventQuery) ([]v022.EventAnswer, error) {
	projects, err := s.listVisibleProjects(c)
	if err != nil {
		return nil, err
	}
	users, err := s.mapUsersByID(c.ctx)
	if err != nil {
		return nil, err
	}
	q := store.EventQuery{Runs: in.Runs, OfRuns: in.OfRuns, OfReplicas: in.OfReplicas, Beyond: in.Beyond, BeyondID: in.BeyondID,
		Ascending: in.Ascending, Limit: in.Limit}
	names := map[dstack.ProjectID]string{}
	for _, p := range projects {
		if in.Projects == nil || slices.Contains(in.Projects, p.ID) {
			names[p.ID] = p.Name
			q.Projects = append(q.Projects, p.ID)
		}
	}
	for _, id := range in.Actors {
		if id == nil {
			q.Users = append(q.Users, "")
		} else if user, ok := users[*id]; ok {
			q.Users = append(q.Users, user.Name)
		}
	}
	if in.Actors != nil && q.Users == nil {
		return nil, nil // no actor is a user
	}
	found, err := s.store.FindEvents(c.ctx, q)
	ids := map[string]dstack.UserID{}
	for id, user := range users {
		ids[user.Name] = id
	}
	answers := make([]v022.EventAnswer, 0, len(found))
	for _, e := range found {
		answers = append(answers, v022.EventAnswer{Event: e, Project: names[e.Project], UserID: ids[e.User]})
	}
	return answers, err
}
