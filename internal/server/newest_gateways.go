package server

import (
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/server/wire/v022"
)

// planGateway finds the gateway that applying a configuration would change.
func (s *Server) planGateway(c *apiCall, in api.GatewayRequest) (v022.GatewayPlanAnswer, error) {
	answer := v022.GatewayPlanAnswer{Project: c.project.Name, User: c.user.Name}
	if err := s.checkGateway(c, in.Configuration); err != nil || in.Configuration.Name == "" {
		return answer, err
	}
	current, err := s.getGateway(c, api.GatewayName{Name: string(in.Configuration.Name)})
	if dstack.KindOf(err) == dstack.NotFound {
		return answer, nil
	}
	answer.Current = &current
	return answer, err
}

// applyGatewayPlan applies a gateway, unless another one than the user saw has its name.
func (s *Server) applyGatewayPlan(c *apiCall, in v022.ApplyGatewayPlan) (v022.Gateway, error) {
	conf := v018.ReadGatewayBackend(in.Plan.Spec.Configuration)
	if conf.Name != "" {
		g, err := s.store.FindGateway(c.ctx, c.project.ID, string(conf.Name))
		if err == nil {
			err = v022.CheckSeenGateway(in, g)
		}
		if err != nil && dstack.KindOf(err) != dstack.NotFound {
			return v022.Gateway{}, err
		}
	}
	applied, err := s.putGateway(c, conf)
	if err != nil {
		return v022.Gateway{}, err
	}
	return v022.BuildGateway(applied), nil
}

// setProjectsDefaultGateway makes a gateway of the project its default. Those of other projects cannot be.
func (s *Server) setProjectsDefaultGateway(c *apiCall, in v022.SetDefaultGateway) (wire.Null, error) {
	if p := in.GatewayProject; p != nil && !strings.EqualFold(*p, c.project.Name) {
		return wire.Null{}, &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: gateways of other projects",
			Hint: "apply a gateway in the project " + c.project.Name}
	}
	return s.setDefaultGateway(c, api.GatewayName{Name: in.Name})
}
