package server

import (
	"slices"

	"dstack/internal/api"
	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// previewFleet returns what applying a fleet would do.
func (s *Server) previewFleet(c *apiCall, in api.FleetRequest) (api.FleetPreview, error) {
	f, err := s.buildFleet(c, in)
	if err != nil {
		return api.FleetPreview{}, err
	}
	p := api.FleetPreview{Project: c.project.Name, User: c.user.Name, Name: f.Name, IsChanged: true, Hosts: []api.HostChange{}}
	var answer wire.FleetAnswer
	if f.Name != "" {
		current, err := s.store.FindFleet(c.ctx, c.project.ID, f.Name)
		switch {
		case err == nil:
			if answer, err = s.answerFleet(c, current); err != nil {
				return p, err
			}
			p.Current = new(buildFleetView(answer))
			p.IsChanged = !hasSameConfiguration(f.Configuration, current.Configuration)
		case dstack.KindOf(err) != dstack.NotFound:
			return p, err
		}
	}
	p.Hosts = append(p.Hosts, buildHostChanges(answer, f.Hosts)...)
	if f.IsRented() {
		p.Rented = s.planRental(c, f, answer)
	}
	return p, nil
}

// hasSameConfiguration reports whether two configurations are equal, apart from keys.
func hasSameConfiguration(a, b spec.Fleet) bool {
	first, err1 := a.WithoutKeys().SourceJSON()
	second, err2 := b.WithoutKeys().SourceJSON()
	return err1 == nil && err2 == nil && slices.Equal(first, second)
}

// buildHostChanges compares the hosts of a fleet with those of a configuration.
func buildHostChanges(current wire.FleetAnswer, wanted []dstack.Host) []api.HostChange {
	var changes []api.HostChange
	kept := map[dstack.InstanceID]bool{}
	for i, was := range fleet.MatchHosts(current.Fleet.Hosts, wanted) {
		change := newHostChange(api.HostAdded, wanted[i])
		change.NeedsKey, change.NeedsJump = true, wanted[i].Jump != nil
		if was != nil {
			kept[was.ID] = true
			change.Action, change.NeedsKey = api.HostKept, false
			change.NeedsJump = wanted[i].Jump != nil && (was.Jump == nil || was.Jump.Address != wanted[i].Jump.Address || was.Jump.User != wanted[i].Jump.User)
			if was.IsLeaving {
				change.Action = api.HostAdded
			}
		}
		changes = append(changes, change)
	}
	for _, h := range current.Fleet.Hosts {
		if !kept[h.ID] && !h.IsLeaving {
			change := newHostChange(api.HostRemoved, h)
			change.Replicas = current.Replicas[h.ID]
			changes = append(changes, change)
		}
	}
	return changes
}

func newHostChange(action api.HostAction, h dstack.Host) api.HostChange {
	change := api.HostChange{Action: action, Name: h.Name, Address: h.Login.Address, User: h.Login.User}
	if h.Jump != nil {
		change.Jump = h.Jump.Address
	}
	return change
}
