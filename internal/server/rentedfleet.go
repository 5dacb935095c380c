package server

import (
	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/decide/fleet"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// unsupportedIn returns the features of a fleet's profile that are not implemented yet, apart from those that its
// configuration replaces.
func unsupportedIn(f spec.Fleet, p spec.Profile) spec.Problems {
	return spec.Unsupported(&spec.Service{Params: f.Params}, p)
}

// rental is which machines a fleet could rent.
type rental struct {
	placements   []dstack.Placement // the first ones, best first
	rejections   []dstack.Rejection // some, the nearest to suit first
	total        int                // offers that suit
	highestPrice float64            // of these
	notes        []string           // for each backend that did not answer
}

// findRental returns which machines a fleet could rent.
func (s *Server) findRental(c *apiCall, f dstack.Fleet) rental {
	need := fleet.BuildRequirements(f)
	need.IsGlobalAdmin = true
	offers, more, notes := s.collectOffers(c.ctx, c.project, need, maxPreviewPlacements)
	rented := []dstack.Offer{}
	for _, o := range offers {
		if o.OwnedInstance == "" && !o.AnyNode {
			rented = append(rented, o)
		}
	}
	ranking := placement.Rank(need, rented, nil)
	ranking.MergeZones()
	return rental{ranking.Placements(maxPlanPlacements), ranking.Rejections(maxPlanRejections), ranking.Suitable() + more.Suitable,
		max(ranking.HighestPrice(), more.HighestPrice), notes}
}

// planRental returns what applying a fleet of rented machines would do.
func (s *Server) planRental(c *apiCall, f dstack.Fleet, current wire.FleetAnswer) *api.RentedPlan {
	found := s.findRental(c, f)
	next := current.Fleet
	next.Configuration, next.Profile, next.Rounds = f.Configuration, f.Profile, dstack.FleetRounds{}
	group := groupPlan{placements: found.placements, rejections: found.rejections}
	preview := group.preview(maxPreviewPlacements)
	return &api.RentedPlan{Add: fleet.CountMissing(next, now()), Remove: fleet.CountSurplus(next), Total: found.total,
		Placements: preview.Placements, Rejections: preview.Rejections, Notes: append([]string{}, found.notes...)}
}

// addRentedView adds the rented machines of a fleet to its view.
func addRentedView(v *api.FleetView, a wire.FleetAnswer) {
	v.IsRented, v.Machines = true, []api.MachineView{}
	for i, m := range v018.ListRented(a) {
		v.Machines = append(v.Machines, buildMachineView(m, v018.BuildMachines(a)[i].Name, a.Replicas[m.Instance.ID]))
	}
	if a.Missing > 0 {
		v.Shortage = &api.Shortage{Missing: a.Missing, Reason: string(a.Lack), IsFinal: a.IsFinal}
	}
}

func buildMachineView(m dstack.FleetInstance, name string, replicas []string) api.MachineView {
	i, o := m.Instance, m.Instance.Offer
	v := api.MachineView{ID: string(i.ID), Num: m.Num, Name: name, Backend: o.Key, Region: o.Region, Zone: o.Zone, Type: o.Type, Spot: o.Spot, Price: o.Price,
		CPUs: o.Hardware.CPUs, MemoryMiB: o.Hardware.MemoryMiB, DiskMiB: o.Hardware.DiskMiB, Status: machineStatus(m), IsDraining: m.IsDraining,
		CreatedAt: m.CreatedAt, Since: i.Since, Replicas: append([]string{}, replicas...)}
	if v.Backend == "" {
		v.Backend = o.Backend
	}
	for _, g := range o.Hardware.GPUs {
		v.GPUs = append(v.GPUs, api.HostGPU{ID: g.ID, Vendor: g.Maker, Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	switch {
	case m.IsLeaving && m.Reason != "":
		v.Message = string(m.Reason)
	case i.Reason != "":
		v.Message = string(i.Reason)
	case i.ConsecutiveFailures > 0:
		v.Message = i.LastError
	}
	return v
}

// machineStatus returns the status of a rented machine for the user.
func machineStatus(m dstack.FleetInstance) api.MachineStatus {
	switch m.Instance.Status {
	case dstack.InstanceDeleting, dstack.InstanceDeleted:
		return api.MachineStatusTerminating
	case dstack.InstanceCreating:
		if !m.IsLeaving {
			return api.MachineStatusProvisioning
		}
	case dstack.InstanceAway:
		return api.MachineStatusUnreachable
	case dstack.InstanceUp:
	}
	switch isDraining := m.IsDraining || m.IsLeaving || m.Instance.IsDraining; {
	case m.IsLeaving && m.Replicas == 0:
		return api.MachineStatusTerminating
	case isDraining && m.Replicas > 0:
		return api.MachineStatusDraining
	case isDraining:
		return api.MachineStatusDrained
	case m.Replicas > 0:
		return api.MachineStatusBusy
	}
	return api.MachineStatusIdle
}

// collectFleetRoom returns the machines that could be rented for the fleets that a service names, and which of these have
// all of theirs. Of the offers that a search left out, more counts those of fleets from now on.
func (s *Server) collectFleetRoom(
	c *apiCall, need dstack.Requirements, more *backend.MoreOffers,
) (all []dstack.Offer, full []dstack.Rejection, err error) {
	if len(need.Fleets) == 0 || need.OwnedOnly {
		return nil, nil, nil
	}
	*more = backend.MoreOffers{Unsuited: more.Suitable + more.Unsuited} // they are of no fleet
	fleets, err := s.store.ListFleets(c.ctx, []dstack.ProjectID{c.project.ID})
	if err != nil {
		return nil, nil, err
	}
	for _, f := range fleet.ListWithRoom(need, fleets) {
		offers, left, _ := s.collectOffers(c.ctx, c.project, fleet.NarrowRequirements(need, f), maxPreviewPlacements)
		own := fleet.BuildRequirements(f)
		own.IsGlobalAdmin = true
		chosen := fleet.ChooseForFleet(f, offers, placement.Suits(own))
		if all = append(all, chosen...); len(chosen) > 0 {
			more.Suitable, more.HighestPrice = more.Suitable+left.Suitable, max(more.HighestPrice, left.HighestPrice)
		}
	}
	return all, fleet.ListFull(need, fleets), nil
}
