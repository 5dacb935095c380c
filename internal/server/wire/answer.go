package wire

import (
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// RunAnswer is a run as handlers return it. Each dialect has its own form of it.
type RunAnswer struct {
	Details store.RunDetails
	URLs    RunURLs
	Now     time.Time // the end of attempts that still run, for their cost
}

// RunURLs are the URLs at which a run is published.
type RunURLs struct {
	Service string // https://<run>.<domain>, or below the server's own address with a trailing slash
	Models  string // base URL of the models of its project, with /v1; used only if the run has a model
	SSH     SSHAddress
}

// SSHAddress is where clients attach to the jobs of a run. The user name is the ID of the job submission. It is zero if
// they cannot attach.
type SSHAddress struct {
	Host string
	Port int
}

// PlanAnswer is the plan of a run as handlers return it.
type PlanAnswer struct {
	Project, User string
	Spec          dstack.RunSpec
	Groups        []GroupPlan // in the order of the configuration; one for a service without groups
	Existing      *RunAnswer  // the unfinished run with the same name; nil: none
}

// GroupPlan is the plan of a group of replicas.
type GroupPlan struct {
	Group      string
	Spec       dstack.RunSpec     // as the replicas run it
	Placements []dstack.Placement // the first ones, best first

	Total        int     // how many offers suit
	HighestPrice float64 // of the offers that suit, in dollars per hour
}

// GPUAnswer is the GPUs that suit a configuration, as handlers return them.
type GPUAnswer struct{ Groups []api.GPUGroup }

// FleetAnswer is a fleet as handlers return it.
type FleetAnswer struct {
	Fleet    dstack.Fleet
	Replicas map[dstack.InstanceID][]string // on hosts of this fleet and others, for the user: web replica 0

	// Of a fleet of rented machines:
	Missing int           // machines that are not even requested
	Lack    dstack.Reason // why, for the user; empty: they are about to be requested
	IsFinal bool          // there is nothing to wait for
	IsAuto  bool          // it is no fleet, but shown as one: the machine that a run rented
}

// FleetName names a fleet in one of two ways.
type FleetName struct {
	Name string
	ID   string // empty: the name counts
}

// GatewayAnswer is a gateway as handlers return it.
type GatewayAnswer struct {
	Gateway      dstack.Gateway // with its status
	Hint         string         // what the user can do
	Serving      []dstack.GatewayProcess
	Certificates []dstack.CertificateStatus
	Published    route.Published
}
