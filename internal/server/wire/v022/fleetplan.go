package v022

import (
	"encoding/json"
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// FleetRequestSpec is what a fleet is to be created with. The profile applies to rented machines.
type FleetRequestSpec struct {
	Configuration     spec.Fleet      `json:"configuration"`
	ConfigurationPath *string         `json:"configuration_path"`
	Profile           *RequestProfile `json:"profile"`
	AutoCreated       bool            `json:"autocreated,omitempty"`
}

// request returns the fleet that a specification describes.
func (s FleetRequestSpec) request() api.FleetRequest {
	request := api.FleetRequest{Configuration: s.Configuration}
	if s.Profile != nil {
		request.Profile = &s.Profile.Profile
	}
	return request
}

// GetFleetPlan is the body of fleets/get_plan. The answer has the specification as it was sent, with its keys: clients
// apply what they are answered.
type GetFleetPlan struct {
	Spec SentFleetSpec `json:"spec"`
}

// SentFleetSpec is a FleetRequestSpec with its text.
type SentFleetSpec struct {
	FleetRequestSpec
	sent json.RawMessage
}

// UnmarshalJSON reads a specification, and keeps the text.
func (s *SentFleetSpec) UnmarshalJSON(text []byte) error {
	s.sent = slices.Clone(text)
	in, err := wire.Decode[FleetRequestSpec](text)
	s.FleetRequestSpec = in
	return err
}

// RequestSchema returns the schema of a specification.
func (SentFleetSpec) RequestSchema() wire.Schema {
	return wire.Schema{"type": "object", "required": []string{"configuration"}, "properties": wire.Schema{"configuration": wire.Schema{"type": "object"}}}
}

// DecodeGetFleetPlan returns the fleet to plan.
func DecodeGetFleetPlan(in GetFleetPlan) (api.FleetRequest, error) {
	return in.Spec.request(), nil
}

// FleetPlanAnswer is the plan of a fleet.
type FleetPlanAnswer struct {
	Project, User string
	Current       *wire.FleetAnswer // the fleet with the same name; nil: none
	Profile       spec.Profile
	Placements    []dstack.Placement // machines to rent, best first
	Total         int                // how many offers suit
	HighestPrice  float64            // of these
}

// FleetPlan answers fleets/get_plan.
type FleetPlan struct {
	ProjectName     string          `json:"project_name"`
	User            string          `json:"user"`
	Spec            json.RawMessage `json:"spec"`
	EffectiveSpec   FleetSpec       `json:"effective_spec"`
	CurrentResource *Fleet          `json:"current_resource"`
	Offers          []Offer         `json:"offers"`
	TotalOffers     int             `json:"total_offers"`
	MaxOfferPrice   *float64        `json:"max_offer_price"`
	Action          string          `json:"action"` // create, update
}

// BuildFleetPlan returns the plan of a fleet.
func BuildFleetPlan(in GetFleetPlan, answer FleetPlanAnswer) FleetPlan {
	plan := FleetPlan{ProjectName: answer.Project, User: answer.User, Spec: in.Spec.sent, Offers: []Offer{}, Action: "create",
		EffectiveSpec: buildFleetSpec(in.Spec.Configuration, answer.Profile, false), TotalOffers: answer.Total}
	for _, p := range answer.Placements {
		plan.Offers = append(plan.Offers, buildOffer(p.Offer))
	}
	if answer.Total > 0 {
		plan.MaxOfferPrice = &answer.HighestPrice
	}
	plan.EffectiveSpec.ConfigurationPath = in.Spec.ConfigurationPath
	if answer.Current != nil {
		plan.Action = "update"
		plan.CurrentResource = new(BuildFleet(*answer.Current))
		plan.CurrentResource.Spec.ConfigurationPath = in.Spec.ConfigurationPath // clients compare both, and the path is not kept
	}
	return plan
}

// ApplyFleetPlan is the body of fleets/apply.
type ApplyFleetPlan struct {
	Plan  FleetPlanToApply `json:"plan"`
	Force bool             `json:"force,omitempty"`
}

// FleetPlanToApply is a fleet, and the fleet that its user saw under this name.
type FleetPlanToApply struct {
	Spec            FleetRequestSpec `json:"spec"`
	CurrentResource *dstack.JSON     `json:"current_resource"`
}

// DecodeApplyFleetPlan returns the fleet to apply.
func DecodeApplyFleetPlan(in ApplyFleetPlan) (api.FleetRequest, error) {
	return in.Plan.Spec.request(), nil
}

// BuildAppliedFleet returns the fleet that was applied.
func BuildAppliedFleet(_ ApplyFleetPlan, a wire.FleetAnswer) Fleet { return BuildFleet(a) }
