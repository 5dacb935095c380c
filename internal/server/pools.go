package server

import (
	"encoding/json"
	"errors"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
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

// listMachines lists the machines of a project that replicas share. Rented machines belong
// to their replicas.
func (s *Server) listMachines(c *apiCall) ([]api.Instance, error) {
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return nil, err
	}
	offers, _ := s.collectOffers(c.ctx, c.project.Name, dstack.Requirements{})
	machines := []api.Instance{}
	for _, o := range offers {
		if o.OwnedInstance != "" {
			_, isBusy := used[o.OwnedInstance]
			machines = append(machines, wire.BuildInstance(c.project.Name, o, len(machines), isBusy, c.project.CreatedAt))
		}
	}
	return machines, nil
}

// getOffers returns the machines that suit a profile and requirements, best first.
func (s *Server) getOffers(c *apiCall, in api.GetOffers) (api.PoolOffers, error) {
	need, err := buildOfferRequirements(in)
	if err != nil {
		return api.PoolOffers{}, err
	}
	need.IsGlobalAdmin = c.user.GlobalRole == dstack.RoleAdmin
	used, err := s.store.Allocations(c.ctx, c.project.ID)
	if err != nil {
		return api.PoolOffers{}, err
	}
	offers, _ := s.collectOffers(c.ctx, c.project.Name, need)
	placements, _ := placement.RankOffers(need, offers, used)
	found := api.PoolOffers{PoolName: namePool(in.Profile), Instances: []api.Offer{}}
	for _, p := range placements {
		found.Instances = append(found.Instances, wire.BuildOffer(p))
	}
	return found, nil
}

// buildOfferRequirements returns what a service without a port would require of a machine.
func buildOfferRequirements(in api.GetOffers) (dstack.Requirements, error) {
	text, err := json.Marshal(map[string]any{"type": "service", "port": 1, "commands": []string{"true"}, "resources": in.Requirements.Resources})
	if err != nil {
		return dstack.Requirements{}, err
	}
	service, err := spec.ParseService("requirements", text)
	if problems, ok := errors.AsType[spec.Problems](err); ok {
		return dstack.Requirements{}, newProblemsError(problems)
	}
	if err != nil {
		return dstack.Requirements{}, err
	}
	if problems := spec.Unsupported(service, in.Profile); len(problems) > 0 {
		return dstack.Requirements{}, newUnsupportedError(problems)
	}
	need := job.BuildRequirements(dstack.RunSpec{Configuration: *service, Profile: in.Profile})
	need.AnyPort = true
	if in.Requirements.MaxPrice != nil {
		need.MaxPrice = in.Requirements.MaxPrice
	}
	if in.Requirements.Spot != nil {
		need.Spot = in.Requirements.Spot
	}
	return need, nil
}

// namePool returns the name of a profile's pool.
func namePool(p spec.Profile) string {
	if name := strings.TrimSpace(string(p.PoolName)); name != "" {
		return name
	}
	return api.DefaultPool
}
