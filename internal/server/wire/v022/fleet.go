package v022

import (
	"slices"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// fleetName is the name of the only fleet of a project: the machines that its replicas share. Without a fleet, clients ask
// for one before a run could be submitted.
const fleetName = "default"

// Fleet is the fleet of a project in an answer.
type Fleet struct {
	ID            string        `json:"id"`
	Name          string        `json:"name"`
	ProjectName   string        `json:"project_name"`
	Spec          FleetSpec     `json:"spec"`
	CreatedAt     api.Timestamp `json:"created_at"`
	Status        string        `json:"status"`
	StatusMessage *string       `json:"status_message"`
	Instances     []Instance    `json:"instances"`
}

// FleetSpec is what a fleet was created with.
type FleetSpec struct {
	Configuration FleetConfiguration `json:"configuration"`
	Profile       FleetProfile       `json:"profile"`
}

// FleetConfiguration is the configuration of a fleet.
type FleetConfiguration struct {
	Type  string     `json:"type"`
	Name  string     `json:"name"`
	Nodes FleetNodes `json:"nodes"`
}

// FleetNodes is how many machines a fleet has.
type FleetNodes struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// FleetProfile is the profile of a fleet.
type FleetProfile struct {
	Name string `json:"name"`
}

// Instance is a machine of a fleet.
type Instance struct {
	ID           string        `json:"id"`
	ProjectName  string        `json:"project_name"`
	Backend      string        `json:"backend"`
	InstanceType InstanceType  `json:"instance_type"`
	Name         string        `json:"name"`
	FleetID      string        `json:"fleet_id"`
	FleetName    string        `json:"fleet_name"`
	InstanceNum  int           `json:"instance_num"`
	Hostname     *string       `json:"hostname"`
	Status       string        `json:"status"`
	Created      api.Timestamp `json:"created"`
	Region       string        `json:"region"`
	Price        float64       `json:"price"`
}

// GetFleet is the body of fleets/get: one of both.
type GetFleet struct {
	Name *string `json:"name"`
	ID   *string `json:"id"`
}

// DecodeGetFleet checks that the request names the only fleet.
func DecodeGetFleet(in GetFleet) (wire.Null, error) {
	if in.ID == nil && valueOr(in.Name, "") != fleetName {
		return wire.Null{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no such fleet",
			Hint: "all machines are in the fleet " + fleetName}
	}
	return wire.Null{}, nil
}

// ListFleets is the body of fleets/list of a project. Nothing is imported.
type ListFleets struct {
	IncludeImported bool `json:"include_imported,omitempty"`
}

// IsOptionalBody implements wire.OptionalBody.
func (ListFleets) IsOptionalBody() {}

// DecodeListFleets returns the query, which selects nothing.
func DecodeListFleets(ListFleets) (wire.Null, error) { return wire.Null{}, nil }

// BuildFleets returns the only fleet, or none if there are no machines.
func BuildFleets(_ ListFleets, machines []api.Instance) []Fleet {
	if len(machines) == 0 {
		return []Fleet{}
	}
	return []Fleet{BuildFleet(GetFleet{}, machines)}
}

// BuildFleet returns the only fleet.
func BuildFleet(_ GetFleet, machines []api.Instance) Fleet {
	n := len(machines)
	fleet := Fleet{Name: fleetName, Status: "active", Instances: []Instance{}, Spec: FleetSpec{
		FleetConfiguration{"fleet", fleetName, FleetNodes{n, n}}, FleetProfile{defaultProfileName}}}
	if n > 0 {
		fleet.ProjectName = machines[0].ProjectName
		first := slices.MinFunc(machines, func(a, b api.Instance) int { return a.Created.Compare(b.Created.Time) })
		fleet.CreatedAt = first.Created
	}
	fleet.ID = uuid.NewSHA1(uuid.NameSpaceURL, []byte("dstack:fleet:"+fleet.ProjectName)).String()
	for _, m := range machines {
		fleet.Instances = append(fleet.Instances, Instance{ID: m.ID, ProjectName: m.ProjectName, Backend: encodeBackend(m.Backend),
			InstanceType: encodeInstanceType(m.InstanceType), Name: m.Name, FleetID: fleet.ID, FleetName: fleetName, InstanceNum: m.InstanceNum,
			Hostname: m.Hostname, Status: m.Status, Created: m.Created, Region: m.Region, Price: m.Price})
	}
	return fleet
}

// encodeInstanceType returns a type from its form in 0.18.10.
func encodeInstanceType(old api.InstanceType) InstanceType {
	hw := old.Resources
	gpus := make([]HardwareGPU, 0, len(hw.GPUs))
	for _, g := range hw.GPUs {
		gpus = append(gpus, HardwareGPU{Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	return InstanceType{Name: old.Name, Resources: Hardware{CPUs: hw.CPUs, MemoryMiB: hw.MemoryMiB, GPUs: gpus, Spot: hw.Spot, Disk: hw.Disk}}
}
