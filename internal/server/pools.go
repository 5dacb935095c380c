package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// listPools lists the only pool. Pools of 0.18.10 select machines; here every run may use
// all machines of its project's backends.
func (s *Server) listPools(c *apiCall, _ wire.Null) ([]api.Pool, error) {
	machines, err := s.listMachines(c)
	if err != nil {
		return nil, err
	}
	return []api.Pool{{Name: api.DefaultPool, Default: true, CreatedAt: api.NewTimestamp(c.project.CreatedAt),
		TotalInstances: len(machines), AvailableInstances: len(machines)}}, nil
}

func (s *Server) showPool(c *apiCall, in api.ShowPool) (api.PoolInstances, error) {
	if name := orEmpty(in.Name); name != "" && name != api.DefaultPool {
		return api.PoolInstances{}, wire.Error{Msg: "Pool not found", Err: &dstack.Error{Kind: dstack.NotFound,
			Message: "there is no pool " + quote(name),
			Hint:    "all machines are in " + api.DefaultPool + "; the name of a pool selects nothing"}}
	}
	machines, err := s.listMachines(c)
	return api.PoolInstances{Name: api.DefaultPool, Instances: machines}, err
}

// listMachines lists the machines of a project that replicas share: the server's own, nodes of clusters, and hosts of fleets. Rented machines
// belong to their replicas.
func (s *Server) listMachines(c *apiCall) ([]api.Instance, error) {
	machines, err := s.listOwnMachines(c)
	if err != nil {
		return nil, err
	}
	fleets, err := s.listFleets(c, wire.Null{})
	for _, f := range fleets {
		machines = append(machines, v018.BuildMachines(f)...)
	}
	return machines, err
}

// listOwnMachines lists the server's own machines and nodes of clusters.
func (s *Server) listOwnMachines(c *apiCall) ([]api.Instance, error) {
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return nil, err
	}
	offers, _, _ := s.collectOffers(c.ctx, c.project, dstack.Requirements{}, maxPreviewPlacements)
	machines := []api.Instance{}
	for _, o := range offers {
		if o.OwnedInstance != "" && o.Fleet == "" && !o.AnyNode {
			_, isBusy := used[o.OwnedInstance]
			machines = append(machines, v018.BuildInstance(c.project.Name, o, len(machines), isBusy, c.project.CreatedAt))
		}
	}
	return machines, nil
}

// maxPoolInstances is how many machines an answer of pools/list_instances has.
const maxPoolInstances = 1000

// listPoolInstances lists the hosts of the fleets of all projects that the caller may see, newest first.
func (s *Server) listPoolInstances(c *apiCall, in api.ListPoolInstances) ([]api.Instance, error) {
	answers, err := s.listAllFleets(c, wire.Null{})
	if err != nil {
		return nil, err
	}
	hosts := []api.Instance{}
	for _, a := range answers {
		if in.ProjectName == nil || strings.EqualFold(*in.ProjectName, a.Fleet.ProjectName) {
			hosts = append(hosts, v018.BuildMachines(a)...)
		}
	}
	hosts = slices.DeleteFunc(hosts, func(h api.Instance) bool { return in.OnlyActive && strings.HasPrefix(h.Status, "terminat") })
	slices.SortFunc(hosts, func(a, b api.Instance) int {
		return cmp.Or(b.Created.Compare(a.Created.Time), strings.Compare(a.ID, b.ID))
	})
	if in.Ascending {
		slices.Reverse(hosts)
	}
	if in.PrevID != nil {
		if i := slices.IndexFunc(hosts, func(h api.Instance) bool { return h.ID == *in.PrevID }); i >= 0 {
			hosts = hosts[i+1:]
		}
	}
	limit := maxPoolInstances
	if in.Limit != nil {
		limit = *in.Limit
	}
	return hosts[:min(len(hosts), limit)], nil
}

// getOffers returns the machines that suit a profile and requirements, best first.
func (s *Server) getOffers(c *apiCall, in api.GetOffers) (api.PoolOffers, error) {
	answer, err := s.planOffers(c, in)
	if err != nil {
		return api.PoolOffers{}, err
	}
	found := api.PoolOffers{PoolName: v018.NamePool(in.Profile), Instances: []api.Offer{}}
	for _, p := range answer.Groups[0].Placements {
		found.Instances = append(found.Instances, v018.BuildOffer(p))
	}
	return found, nil
}

// planOffers returns the machines that suit a profile and requirements, best first, as the plan of a service that never
// runs.
func (s *Server) planOffers(c *apiCall, in api.GetOffers) (wire.PlanAnswer, error) {
	rs, need, err := buildOfferNeed(c, in)
	if err != nil {
		return wire.PlanAnswer{}, err
	}
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return wire.PlanAnswer{}, err
	}
	offers, more, _ := s.collectOffers(c.ctx, c.project, need, maxPlanPlacements)
	ranking := placement.Rank(need, offers, used)
	ranking.MergeZones()
	missing := ranking.Unavailable(maxPlanRejections)
	return wire.PlanAnswer{Project: c.project.Name, User: c.user.Name, Spec: rs,
		Groups: []wire.GroupPlan{{Group: spec.DefaultGroup, Spec: rs, Placements: append(ranking.Placements(maxPlanPlacements), missing...),
			Total: ranking.Suitable() + len(missing) + more.Suitable, HighestPrice: max(ranking.HighestPrice(), more.HighestPrice)}}}, nil
}

// listOffers returns where the replicas of a configuration can run, and why not elsewhere. It needs neither the code nor
// the secrets of a run.
func (s *Server) listOffers(c *apiCall, in api.OffersRequest) (api.OfferList, error) {
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return api.OfferList{}, err
	}
	rs := dstack.RunSpec{Configuration: in.Configuration}
	if in.Profile != nil {
		rs.Profile = *in.Profile
	}
	by, err := readGrouping(in.GroupBy)
	if err != nil {
		return api.OfferList{}, err
	}
	list := api.OfferList{User: c.user.Name, Groups: []api.GroupPreview{}, Notes: []string{}}
	var groups []groupPlan
	for _, name := range rs.Configuration.GroupNames() {
		group := groupPlan{name: name, limit: in.Limit}
		group.spec, _ = rs.ForGroup(name)
		if err := s.placeGroup(c, &group, nil, used); err != nil {
			return api.OfferList{}, err
		}
		if group.notes = group.failed; !group.hasMachines && len(group.failed) == 0 {
			group.notes = append(group.notes, noMachines)
		}
		groups = append(groups, group)
		preview := group.preview(cmp.Or(in.Limit, maxPreviewPlacements))
		if len(in.GroupBy) > 0 {
			need := job.BuildRequirements(group.spec)
			need.IsGlobalAdmin = c.isGlobalAdmin()
			if preview.GPUs, err = s.groupByGPU(c, need, by, used); err != nil {
				return api.OfferList{}, err
			}
		}
		list.Groups = append(list.Groups, preview)
	}
	list.Notes = joinNotes(groups)
	return list, nil
}

// buildOfferNeed returns a service that never runs, and what it requires of a machine.
func buildOfferNeed(c *apiCall, in api.GetOffers) (dstack.RunSpec, dstack.Requirements, error) {
	rs, err := buildOfferSpec(in)
	if err != nil {
		return rs, dstack.Requirements{}, err
	}
	need := job.BuildRequirements(rs)
	need.AnyPort, need.IsGlobalAdmin = true, c.user.GlobalRole == dstack.RoleAdmin
	if in.Requirements.MaxPrice != nil {
		need.MaxPrice = in.Requirements.MaxPrice
	}
	if in.Requirements.Spot != nil {
		need.Spot = in.Requirements.Spot
	}
	return rs, need, nil
}

// buildOfferSpec returns a service with a profile and requirements.
func buildOfferSpec(in api.GetOffers) (dstack.RunSpec, error) {
	text, err := json.Marshal(map[string]any{"type": "service", "port": 1, "commands": []string{"true"}, "resources": in.Requirements.Resources})
	if err != nil {
		return dstack.RunSpec{}, err
	}
	service, err := spec.ParseService("requirements", text)
	if problems, ok := errors.AsType[spec.Problems](err); ok {
		return dstack.RunSpec{}, newProblemsError(problems)
	}
	if err != nil {
		return dstack.RunSpec{}, err
	}
	if problems := spec.Unsupported(service, in.Profile); len(problems) > 0 {
		return dstack.RunSpec{}, newUnsupportedError(problems)
	}
	return dstack.RunSpec{Configuration: *service, Profile: in.Profile}, nil
}
