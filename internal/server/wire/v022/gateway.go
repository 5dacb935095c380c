package v022

import (
	"encoding/json"
	"fmt"
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// Gateway is a gateway in an answer.
type Gateway struct {
	ID             string               `json:"id"`
	Name           string               `json:"name"`
	ProjectName    string               `json:"project_name"`
	Configuration  GatewayConfiguration `json:"configuration"`
	CreatedAt      api.Timestamp        `json:"created_at"`
	Status         dstack.GatewayStatus `json:"status"`
	StatusMessage  *string              `json:"status_message"`
	Hostname       *string              `json:"hostname"` // of a balancer in front of the processes: there is none
	WildcardDomain *string              `json:"wildcard_domain"`
	Default        bool                 `json:"default"`
	Replicas       []GatewayReplica     `json:"replicas"`
	Backend        *string              `json:"backend"` // always null, as those below
	Region         *string              `json:"region"`
	IPAddress      *string              `json:"ip_address"`
	InstanceID     *string              `json:"instance_id"`
}

// GatewayConfiguration is the configuration of a gateway in an answer.
type GatewayConfiguration struct {
	v018.GatewayConfiguration
	Replicas *int `json:"replicas"`
}

// GatewayReplica is a process of a gateway.
type GatewayReplica struct {
	Hostname      *string       `json:"hostname"`
	ReplicaNum    int           `json:"replica_num"`
	Backend       string        `json:"backend"`
	Region        string        `json:"region"`
	CreatedAt     api.Timestamp `json:"created_at"`
	Status        string        `json:"status"` // running, provisioning
	StatusMessage *string       `json:"status_message"`
}

// ListGateways is the body of gateways/list. Gateways of other projects are never imported.
type ListGateways struct {
	IncludeImported bool `json:"include_imported,omitempty"`
}

// IsOptionalBody says that earlier clients send no body.
func (ListGateways) IsOptionalBody() {}

// DecodeListGateways returns the request of the handler.
func DecodeListGateways(ListGateways) (wire.Null, error) { return wire.Null{}, nil }

// BuildGateways returns gateways in their order.
func BuildGateways(_ ListGateways, answers []wire.GatewayAnswer) []Gateway {
	gateways := make([]Gateway, 0, len(answers))
	for _, a := range answers {
		gateways = append(gateways, BuildGateway(a))
	}
	return gateways
}

// nameClientBackend returns the backend of a gateway in answers: these clients know no gateway of the server itself.
func nameClientBackend(conf spec.Gateway) string {
	if conf.Backend == spec.BackendKubernetes {
		return conf.Backend
	}
	return spec.BackendSSH
}

// BuildGateway returns a gateway.
func BuildGateway(a wire.GatewayAnswer) Gateway {
	g, old := a.Gateway, v018.BuildGateway(a)
	gateway := Gateway{ID: string(g.ID), Name: g.Name, ProjectName: g.ProjectName, Configuration: buildGatewayConfiguration(g.Configuration),
		CreatedAt: old.CreatedAt, Status: old.Status, StatusMessage: old.StatusMessage, WildcardDomain: old.WildcardDomain, Default: old.Default,
		Replicas: []GatewayReplica{}}
	gateway.Configuration.Name = g.Name
	for i, p := range g.Processes {
		replica := GatewayReplica{ReplicaNum: i, Backend: nameClientBackend(g.Configuration), Region: old.Region, CreatedAt: api.NewTimestamp(p.JoinedAt), Status: "running"}
		if !slices.ContainsFunc(a.Serving, func(s dstack.GatewayProcess) bool { return s.ID == p.ID }) {
			replica.Status, replica.StatusMessage = "provisioning", new("it does not answer")
		}
		if p.Address != "" {
			replica.Hostname = &p.Address
		}
		gateway.Replicas = append(gateway.Replicas, replica)
	}
	return gateway
}

func buildGatewayConfiguration(conf spec.Gateway) GatewayConfiguration {
	known := GatewayConfiguration{v018.BuildGatewayConfiguration(conf), conf.Replicas}
	known.Backend = nameClientBackend(conf)
	return known
}

// GatewayRequestSpec is what a gateway is to be applied with.
type GatewayRequestSpec struct {
	Configuration     spec.Gateway `json:"configuration"`
	ConfigurationPath *string      `json:"configuration_path"`
}

// GatewaySpec is what a gateway is applied with, in an answer.
type GatewaySpec struct {
	Configuration     GatewayConfiguration `json:"configuration"`
	ConfigurationPath *string              `json:"configuration_path"`
}

// GetGatewayPlan is the body of gateways/get_plan.
type GetGatewayPlan struct {
	Spec GatewayRequestSpec `json:"spec"`
}

// DecodeGetGatewayPlan returns the gateway to plan.
func DecodeGetGatewayPlan(in GetGatewayPlan) (api.GatewayRequest, error) {
	return api.GatewayRequest{Configuration: v018.ReadGatewayBackend(in.Spec.Configuration)}, nil
}

// GatewayPlanAnswer is the plan of a gateway.
type GatewayPlanAnswer struct {
	Project, User string
	Current       *wire.GatewayAnswer // the gateway with the same name; nil: none
}

// GatewayPlan answers gateways/get_plan.
type GatewayPlan struct {
	ProjectName     string      `json:"project_name"`
	User            string      `json:"user"`
	Spec            GatewaySpec `json:"spec"`
	EffectiveSpec   GatewaySpec `json:"effective_spec"`
	CurrentResource *Gateway    `json:"current_resource"`
	Action          string      `json:"action"` // create, update
}

// BuildGatewayPlan returns the plan of a gateway.
func BuildGatewayPlan(in GetGatewayPlan, answer GatewayPlanAnswer) GatewayPlan {
	conf := GatewaySpec{buildGatewayConfiguration(v018.ReadGatewayBackend(in.Spec.Configuration)), in.Spec.ConfigurationPath}
	plan := GatewayPlan{ProjectName: answer.Project, User: answer.User, Spec: conf, EffectiveSpec: conf, Action: "create"}
	if answer.Current != nil {
		plan.Action, plan.CurrentResource = "update", new(BuildGateway(*answer.Current))
	}
	return plan
}

// ApplyGatewayPlan is the body of gateways/apply.
type ApplyGatewayPlan struct {
	Plan  GatewayPlanToApply `json:"plan"`
	Force bool               `json:"force,omitempty"`
}

// GatewayPlanToApply is a gateway, and the gateway that its user saw under this name.
type GatewayPlanToApply struct {
	Spec            GatewayRequestSpec `json:"spec"`
	CurrentResource *dstack.JSON       `json:"current_resource"`
}

// CheckSeenGateway returns Conflict if a gateway is not the one that the user of a plan saw.
func CheckSeenGateway(in ApplyGatewayPlan, g dstack.Gateway) error {
	var seen struct{ ID string }
	if in.Plan.CurrentResource != nil {
		if err := json.Unmarshal(*in.Plan.CurrentResource, &seen); err != nil {
			return &dstack.Error{Kind: dstack.Invalid, Message: "plan.current_resource is not a gateway", Hint: "get the plan again", Cause: err}
		}
	}
	if in.Force || seen.ID == string(g.ID) {
		return nil
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the gateway %s has changed since the plan was made", g.Name), Hint: "apply it again"}
}

// CreateGateway is the body of gateways/create.
type CreateGateway struct {
	Configuration spec.Gateway `json:"configuration"`
}

// DecodeCreateGateway returns the configuration.
func DecodeCreateGateway(in CreateGateway) (spec.Gateway, error) {
	return v018.ReadGatewayBackend(in.Configuration), nil
}

// BuildCreatedGateway returns the gateway that was created.
func BuildCreatedGateway(_ CreateGateway, a wire.GatewayAnswer) Gateway { return BuildGateway(a) }

// SetDefaultGateway is the body of gateways/set_default.
type SetDefaultGateway struct {
	Name           string  `json:"name"`
	GatewayProject *string `json:"gateway_project"`
}
