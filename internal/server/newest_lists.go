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

// listProjectFleets lists the fleets of a project and the server's own machines.
func (s *Server) listProjectFleets(c *apiCall, _ wire.Null) (v022.ProjectFleets, error) {
	machines, err := s.listOwnMachines(c)
	if err != nil {
		return v022.ProjectFleets{}, err
	}
	fleets, err := s.listFleets(c, wire.Null{})
	return v022.ProjectFleets{Machines: machines, Fleets: fleets}, err
}

// findProjectFleet finds a fleet, which may be that of the server's own machines.
func (s *Server) findProjectFleet(c *apiCall, in wire.FleetName) (v022.ProjectFleets, error) {
	if v022.IsLocalFleet(in, c.project.Name) {
		machines, err := s.listOwnMachines(c)
		return v022.ProjectFleets{Machines: machines}, err
	}
	found, err := s.getFleet(c, in)
	return v022.ProjectFleets{Fleets: []wire.FleetAnswer{found}}, err
}

// planFleet finds the fleet that applying a configuration would change.
func (s *Server) planFleet(c *apiCall, in api.FleetRequest) (v022.FleetPlanAnswer, error) {
	answer := v022.FleetPlanAnswer{Project: c.project.Name, User: c.user.Name}
	f, err := s.buildFleet(c, in)
	if err != nil {
		return answer, err
	}
	if answer.Profile = f.Profile; f.IsRented() {
		found := s.findRental(c, f)
		answer.Placements, answer.Total, answer.HighestPrice = found.placements, found.total, found.highestPrice
	}
	if f.Name == "" {
		return answer, nil
	}
	current, err := s.getFleet(c, wire.FleetName{Name: f.Name})
	if dstack.KindOf(err) == dstack.NotFound {
		return answer, nil
	}
	answer.Current = &current
	return answer, err
}

// findInstance finds a host of a fleet of a project.
func (s *Server) findInstance(c *apiCall, in v022.GetInstance) (v022.Instance, error) {
	answers, err := s.listFleets(c, wire.Null{})
	if err != nil {
		return v022.Instance{}, err
	}
	for _, one := range v022.BuildInstances(v022.ListInstances{}, answers) {
		if one.ID == in.ID {
			return one, nil
		}
	}
	return v022.Instance{}, toFleetNotFoundError(&dstack.Error{Kind: dstack.NotFound, Message: "there is no such host", Hint: "list them: dstack fleet list -v"})
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
