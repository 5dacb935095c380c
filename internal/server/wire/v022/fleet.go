package v022

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// localFleet is the name of the fleet of the server's own machine. Without a fleet, clients ask for one before a run
// could be submitted.
const localFleet = "default"

// Fleet is a fleet in an answer.
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
	Configuration     FleetConfiguration `json:"configuration"`
	ConfigurationPath *string            `json:"configuration_path"`
	Profile           Profile            `json:"profile"`
	AutoCreated       bool               `json:"autocreated,omitempty"`
}

// FleetConfiguration is the configuration of a fleet: of hosts, of rented machines, or of the server's own machine.
type FleetConfiguration struct {
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Env       *spec.Env         `json:"env,omitempty"`
	SSH       *spec.SSHMachines `json:"ssh_config,omitempty"`
	Nodes     *FleetNodes       `json:"nodes,omitempty"`
	Placement *string           `json:"placement,omitempty"`
	Resources *Resources        `json:"resources,omitempty"`
	Params
}

// FleetNodes is how many machines a fleet has.
type FleetNodes struct {
	Min    int  `json:"min"`
	Target *int `json:"target,omitempty"` // nil: the minimum
	Max    *int `json:"max"`              // nil: unlimited
}

// Instance is a machine of a fleet.
type Instance struct {
	ID                       string        `json:"id"`
	ProjectName              string        `json:"project_name"`
	Backend                  spec.Text     `json:"backend"`
	InstanceType             *InstanceType `json:"instance_type"`
	Name                     string        `json:"name"`
	FleetID                  string        `json:"fleet_id"`
	FleetName                string        `json:"fleet_name"`
	InstanceNum              int           `json:"instance_num"`
	Hostname                 *string       `json:"hostname"`
	Status                   string        `json:"status"`
	Unreachable              bool          `json:"unreachable"`
	TerminationReason        *string       `json:"termination_reason"`
	TerminationReasonMessage *string       `json:"termination_reason_message"`
	Created                  api.Timestamp `json:"created"`
	Region                   spec.Text     `json:"region"`
	AvailabilityZone         spec.Text     `json:"availability_zone"`
	Price                    float64       `json:"price"`
	GPUDriver                *GPUDriver    `json:"gpu_driver"`
}

// GPUDriver is the driver of the GPUs of a machine.
type GPUDriver struct {
	Version string `json:"version"`
}

// GetFleet is the body of fleets/get: one of both.
type GetFleet struct {
	Name *string `json:"name"`
	ID   *string `json:"id"`
}

// DecodeGetFleet returns the name or the ID of the fleet.
func DecodeGetFleet(in GetFleet) (wire.FleetName, error) {
	if in.ID == nil && in.Name == nil {
		return wire.FleetName{}, &dstack.Error{Kind: dstack.Invalid, Message: "name or id must be specified"}
	}
	return wire.FleetName{Name: valueOr(in.Name, ""), ID: valueOr(in.ID, "")}, nil
}

// ListFleets is the body of fleets/list of a project. Nothing is imported.
type ListFleets struct {
	IncludeImported bool `json:"include_imported,omitempty"`
}

// IsOptionalBody implements wire.OptionalBody.
func (ListFleets) IsOptionalBody() {}

// DecodeListFleets returns the query, which selects nothing.
func DecodeListFleets(ListFleets) (wire.Null, error) { return wire.Null{}, nil }

// ListAllFleets is the body of fleets/list of all projects.
type ListAllFleets struct {
	ProjectName     *string    `json:"project_name"`
	OnlyActive      bool       `json:"only_active,omitempty"`
	IncludeImported bool       `json:"include_imported,omitempty"`
	PrevCreatedAt   *time.Time `json:"prev_created_at"`
	PrevID          *string    `json:"prev_id"`
	Limit           *int       `json:"limit" minimum:"0" maximum:"100"`
	Ascending       bool       `json:"ascending,omitempty"`
}

// IsOptionalBody implements wire.OptionalBody.
func (ListAllFleets) IsOptionalBody() {}

// DecodeListAllFleets returns the query, which BuildAllFleets applies.
func DecodeListAllFleets(ListAllFleets) (wire.Null, error) { return wire.Null{}, nil }

// ProjectFleets are the fleets of a project and the server's own machines.
type ProjectFleets struct {
	Machines []api.Instance
	Fleets   []wire.FleetAnswer
}

// BuildFleets returns the fleets of a project. The server's own machines are one more; there is none without them.
func BuildFleets(_ ListFleets, all ProjectFleets) []Fleet {
	fleets := []Fleet{}
	if len(all.Machines) > 0 {
		fleets = append(fleets, buildLocalFleet(all.Machines))
	}
	for _, a := range all.Fleets {
		fleets = append(fleets, BuildFleet(a))
	}
	return fleets
}

// BuildAllFleets returns the fleets of several projects, newest first.
func BuildAllFleets(in ListAllFleets, answers []wire.FleetAnswer) []Fleet {
	fleets := []Fleet{}
	for _, a := range answers {
		if in.ProjectName == nil || strings.EqualFold(*in.ProjectName, a.Fleet.ProjectName) {
			fleets = append(fleets, BuildFleet(a))
		}
	}
	order := func(a, b Fleet) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt.Time), strings.Compare(a.ID, b.ID))
	}
	slices.SortFunc(fleets, order)
	if in.Ascending {
		slices.Reverse(fleets)
	}
	if in.PrevID != nil {
		if i := slices.IndexFunc(fleets, func(f Fleet) bool { return f.ID == *in.PrevID }); i >= 0 {
			fleets = fleets[i+1:]
		}
	}
	return fleets[:min(len(fleets), valueOr(in.Limit, maxFleets))]
}

// maxFleets is how many fleets a list has.
const maxFleets = 100

// BuildNamedFleet returns the fleet that a request names.
func BuildNamedFleet(_ GetFleet, all ProjectFleets) Fleet {
	if len(all.Fleets) > 0 {
		return BuildFleet(all.Fleets[0])
	}
	return buildLocalFleet(all.Machines)
}

// IsLocalFleet reports whether a request means the server's own machines.
func IsLocalFleet(in wire.FleetName, project string) bool {
	return in.ID == localFleetID(project) || in.ID == "" && in.Name == localFleet
}

func localFleetID(project string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("dstack:fleet:"+project)).String()
}

// buildLocalFleet returns the fleet of the server's own machines.
func buildLocalFleet(machines []api.Instance) Fleet {
	n := len(machines)
	fleet := Fleet{Name: localFleet, Status: "active", Instances: []Instance{}, Spec: FleetSpec{
		Configuration: FleetConfiguration{Type: "fleet", Name: localFleet, Nodes: &FleetNodes{Min: n, Max: &n}}, Profile: Profile{Name: defaultProfileName}}}
	if n > 0 {
		fleet.ProjectName = machines[0].ProjectName
		first := slices.MinFunc(machines, func(a, b api.Instance) int { return a.Created.Compare(b.Created.Time) })
		fleet.CreatedAt = first.Created
	}
	fleet.ID = localFleetID(fleet.ProjectName)
	for _, m := range machines {
		fleet.Instances = append(fleet.Instances, buildInstance(fleet, m))
	}
	return fleet
}

func buildInstance(fleet Fleet, m api.Instance) Instance {
	instance := Instance{ID: m.ID, ProjectName: m.ProjectName, Name: m.Name,
		FleetID: fleet.ID, FleetName: fleet.Name, InstanceNum: m.InstanceNum, Hostname: m.Hostname, Status: m.Status, Unreachable: m.Unreachable,
		Created: m.Created, Region: m.Region, Price: m.Price}
	if m.Backend != "" {
		instance.Backend = spec.Text(encodeBackend(string(m.Backend)))
	}
	if m.InstanceType != nil {
		instance.InstanceType = new(encodeInstanceType(*m.InstanceType))
	}
	return instance
}

// BuildFleet returns a fleet.
func BuildFleet(a wire.FleetAnswer) Fleet {
	f := a.Fleet
	fleet := Fleet{ID: string(f.ID), Name: f.Name, ProjectName: f.ProjectName, Spec: buildFleetSpec(f.Configuration, f.Profile, a.IsAuto), CreatedAt: api.NewTimestamp(f.CreatedAt),
		Status: v018.FleetStatus(f), Instances: []Instance{}}
	if f.IsRented() {
		fleet.Instances = buildRented(fleet, a)
		return fleet
	}
	for i, m := range v018.BuildMachines(a) {
		instance, h := buildInstance(fleet, m), f.Hosts[i]
		instance.InstanceType = new(buildInstanceType(v018.HostOffer(h)))
		if h.Check.Found.Hardware.CPUs == 0 {
			instance.InstanceType = nil
		}
		if version := h.Check.Found.DriverVersion; version != "" {
			instance.GPUDriver = &GPUDriver{version}
		}
		if m.Status == "terminated" { // the table of clients shows the reason
			instance.TerminationReason, instance.TerminationReasonMessage = new(h.Check.Message), new(h.Check.Hint)
		}
		fleet.Instances = append(fleet.Instances, instance)
	}
	return fleet
}

// buildRented returns the machines of a fleet that rents them.
func buildRented(fleet Fleet, a wire.FleetAnswer) []Instance {
	instances, rented := []Instance{}, v018.ListRented(a)
	for i, m := range v018.BuildMachines(a) {
		instance := buildInstance(fleet, m)
		switch {
		case i < len(rented):
			o := rented[i].Instance.Offer
			instance.InstanceType, instance.AvailabilityZone = new(buildInstanceType(o)), spec.Text(o.Zone)
			if m.Status == "terminating" && rented[i].Instance.Reason != "" {
				instance.TerminationReasonMessage = new(string(rented[i].Instance.Reason))
			}
		case m.Status == "terminated": // the table of clients shows the reason
			instance.TerminationReason, instance.TerminationReasonMessage = new(string(a.Lack)), new("no_offers")
		}
		instances = append(instances, instance)
	}
	return instances
}

func buildFleetSpec(f spec.Fleet, profile spec.Profile, isAuto bool) FleetSpec {
	f = f.WithoutKeys()
	c := FleetConfiguration{Type: "fleet", Name: string(f.Name), Env: &f.Env, SSH: f.SSH}
	if c.Env == nil || *c.Env == nil {
		c.Env = &spec.Env{}
	}
	if f.Placement != "" {
		c.Placement = new(string(f.Placement))
	}
	out := FleetSpec{Configuration: c, Profile: Profile{Name: defaultProfileName}, AutoCreated: isAuto}
	if f.SSH != nil {
		return out
	}
	least, _, most, isLimited := f.NodeCounts()
	out.Configuration.Nodes = &FleetNodes{Min: least, Target: f.Target}
	if isLimited {
		out.Configuration.Nodes.Max = &most
	}
	out.Configuration.Env, out.Configuration.Resources, out.Configuration.Params = nil, new(buildResources(f.Resources)), buildParams(f.Params)
	if profile.Name != "" {
		out.Profile = buildProfile(profile)
	}
	return out
}
