package server

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// listRunFleets returns the machines that runs rented outside of fleets, as published clients see them: each run has a
// fleet of its name. There is no such fleet.
func (s *Server) listRunFleets(c *apiCall, projects []dstack.ProjectID) ([]wire.FleetAnswer, error) {
	machines, err := s.store.RunMachines(c.ctx, projects)
	if err != nil {
		return nil, err
	}
	var answers []wire.FleetAnswer
	at := map[dstack.RunID]int{}
	for _, m := range machines {
		k, isKnown := at[m.Run]
		if !isKnown {
			k = len(answers)
			at[m.Run] = k
			id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("dstack:fleet of run:"+string(m.Run)))
			answers = append(answers, wire.FleetAnswer{IsAuto: true, Fleet: dstack.Fleet{ID: dstack.FleetID(id.String()), Project: m.Project, ProjectName: m.ProjectName,
				Name: m.RunName, CreatedAt: m.Machine.CreatedAt, Configuration: newRunFleet(m.RunName)}})
		}
		f := &answers[k].Fleet
		f.Instances = append(f.Instances, m.Machine)
		n := len(f.Instances)
		f.Configuration.Nodes = &spec.Range[int]{Min: &n, Max: &n}
	}
	return answers, nil
}

// newRunFleet returns the configuration of a fleet that there is not.
func newRunFleet(name string) spec.Fleet {
	var f spec.Fleet
	_ = json.Unmarshal([]byte(`{"type": "fleet", "nodes": 1}`), &f) // it is valid
	f.Name = spec.Text(name)
	return f
}

// findRunFleet returns the machines of a run, as listRunFleets does; false: it has none outside of fleets.
func (s *Server) findRunFleet(c *apiCall, name string) (wire.FleetAnswer, bool, error) {
	answers, err := s.listRunFleets(c, []dstack.ProjectID{c.project.ID})
	if err != nil {
		return wire.FleetAnswer{}, false, err
	}
	for _, a := range answers {
		if a.Fleet.Name == name {
			return a, true, nil
		}
	}
	return wire.FleetAnswer{}, false, nil
}

// releaseRunFleets gives back the machines of runs that clients delete as fleets, and returns the names that are left. It
// fails with Conflict if replicas run on one.
func (s *Server) releaseRunFleets(c *apiCall, in api.DeleteFleets) (left api.DeleteFleets, err error) {
	var ids []dstack.InstanceID
	for _, name := range in.Names {
		_, err := s.store.FindFleet(c.ctx, c.project.ID, name)
		if dstack.KindOf(err) != dstack.NotFound {
			left.Names = append(left.Names, name)
			continue
		}
		a, isThere, err := s.findRunFleet(c, name)
		if err != nil {
			return left, err
		}
		if !isThere {
			left.Names = append(left.Names, name)
			continue
		}
		for _, m := range a.Fleet.Instances {
			if m.Replicas > 0 {
				message := fmt.Sprintf("Failed to delete fleet %s. Fleet is in use.", name)
				return left, &dstack.Error{Kind: dstack.Conflict, Message: message, Hint: "stop the run first: dstack stop " + name}
			}
			ids = append(ids, m.Instance.ID)
		}
	}
	if err := s.store.ReleaseIdle(c.ctx, ids, now()); err != nil {
		return left, err
	}
	if len(ids) > 0 {
		s.wake()
	}
	return left, nil
}
