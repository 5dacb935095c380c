package v018

import (
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// GetFleet is the body of fleets/get.
type GetFleet struct {
	Name string `json:"name"`
}

// DecodeGetFleet returns the name of the fleet.
func DecodeGetFleet(in GetFleet) (wire.FleetName, error) { return wire.FleetName{Name: in.Name}, nil }

// CreateFleet is the body of fleets/create.
type CreateFleet struct {
	Spec RequestFleetSpec `json:"spec"`
}

// RequestFleetSpec is what a fleet is created with. The profile applies to rented machines.
type RequestFleetSpec struct {
	Configuration spec.Fleet    `json:"configuration"`
	Profile       *spec.Profile `json:"profile,omitempty"`
	AutoCreated   bool          `json:"autocreated,omitempty"`
}

// DecodeCreateFleet returns the fleet to create.
func DecodeCreateFleet(in CreateFleet) (api.FleetRequest, error) {
	return api.FleetRequest{Configuration: in.Spec.Configuration, Profile: in.Spec.Profile}, nil
}

// Fleet is a fleet in an answer.
type Fleet struct {
	Name          string         `json:"name"`
	ProjectName   string         `json:"project_name"`
	Spec          FleetSpec      `json:"spec"`
	CreatedAt     api.Timestamp  `json:"created_at"`
	Status        string         `json:"status"` // active, terminating
	StatusMessage *string        `json:"status_message"`
	Instances     []api.Instance `json:"instances"`
}

// FleetSpec is what a fleet was created with.
type FleetSpec struct {
	Configuration spec.Fleet   `json:"configuration"`
	Profile       spec.Profile `json:"profile"`
	AutoCreated   bool         `json:"autocreated"`
}

// BuildFleets returns fleets in their order.
func BuildFleets(answers []wire.FleetAnswer) []Fleet {
	fleets := make([]Fleet, 0, len(answers))
	for _, a := range answers {
		fleets = append(fleets, BuildFleet(a))
	}
	return fleets
}

// BuildFleet returns a fleet.
func BuildFleet(a wire.FleetAnswer) Fleet {
	profile := a.Fleet.Profile
	if profile.Name == "" {
		profile.Name = "default"
	}
	return Fleet{Name: a.Fleet.Name, ProjectName: a.Fleet.ProjectName, CreatedAt: api.NewTimestamp(a.Fleet.CreatedAt), Status: FleetStatus(a.Fleet),
		Spec:      FleetSpec{Configuration: a.Fleet.Configuration.WithoutKeys(), Profile: profile, AutoCreated: a.IsAuto},
		Instances: BuildMachines(a)}
}

// FleetStatus returns the status of a fleet in the words of clients.
func FleetStatus(f dstack.Fleet) string {
	if f.IsDeleting {
		return "terminating"
	}
	return "active"
}

// BuildMachines returns the hosts and the rented machines of a fleet.
func BuildMachines(a wire.FleetAnswer) []api.Instance {
	return slices.Concat(buildHosts(a), buildRented(a), buildMissing(a))
}

// buildHosts returns the hosts of a fleet as machines.
func buildHosts(a wire.FleetAnswer) []api.Instance {
	hosts := make([]api.Instance, 0, len(a.Fleet.Hosts))
	for _, h := range a.Fleet.Hosts {
		status, isUnreachable := HostStatus(h, len(a.Replicas[h.ID]) > 0)
		instance := api.Instance{ID: buildUUID(string(h.ID)), ProjectName: h.ProjectName, Backend: remoteBackend, InstanceType: new(buildInstanceType(HostOffer(h))),
			Name: h.Name, InstanceNum: h.Num, PoolName: api.DefaultPool, Hostname: new(h.Name), Status: status, Unreachable: isUnreachable,
			Created: api.NewTimestamp(h.CreatedAt), Region: remoteBackend}
		hosts = append(hosts, instance)
	}
	return hosts
}

// remoteBackend is the name that clients have for hosts of fleets, as backend and as region.
const remoteBackend = "remote"

// encodeBackend returns the name that clients have for a backend.
func encodeBackend(name string) string {
	if name == "ssh" {
		return remoteBackend
	}
	return name
}

// HostOffer returns what is known of a host as an offer.
func HostOffer(h dstack.Host) dstack.Offer {
	return dstack.Offer{Backend: remoteBackend, Region: remoteBackend, Type: h.Name, Hardware: h.Check.Found.Hardware}
}

// HostStatus returns the status of a host in the words of clients. A host that failed its check counts as terminated: it
// is the only status that they show as a failure.
func HostStatus(h dstack.Host, isBusy bool) (status string, isUnreachable bool) {
	switch {
	case h.IsLeaving:
		return "terminating", false
	case !h.IsChecked():
		return "provisioning", false
	case h.Check.Status == dstack.HostFailed && !isBusy:
		return "terminated", false
	}
	status = "idle"
	if isBusy {
		status = "busy"
	}
	return status, h.Check.Status != dstack.HostReady
}
