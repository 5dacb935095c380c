package dstack

import (
	"time"

	"dstack/internal/spec"
)

// Instance is a machine that runs replicas, either rented from a backend or
// owned by the user.
type Instance struct {
	ID                  InstanceID
	Backend             string // key in backend.Set
	Offer               Offer
	Status              InstanceStatus
	Reason              Reason
	Since               time.Time     // when Status last changed
	Host                string        // the only installation that can reach the instance; empty: every server can
	LastResponseAt      time.Time     // when its engine last answered
	LastError           string        // its latest error, for the user
	ConsecutiveFailures int           // failed calls to its engine since the last answer
	IdleTime            time.Duration // how long a rented instance may be without replicas; negative: no limit
	EmptySince          time.Time     // since when it has had no replicas; zero: it has some
	UnlistedSince       time.Time     // since when its backend has not listed it; zero: the last list had it
	SilentSince         time.Time     // since when its engine has not answered; zero: the last call was answered
	CheckedAt           time.Time     // when its backend last listed its machines
	IsDraining          bool          // it gets no new replicas, and its replicas are placed elsewhere: see Machine.IsDraining
	Project             ProjectID     // that it was rented for; empty: it is owned
	Fleet               FleetID       // the cloud fleet that it belongs to; empty: none
	TakenBackAt         time.Time     // when its backend takes it back: see Machine.TakenBackAt; zero: not announced
	Version             int64
}

// InstanceStatus is the phase of an instance's life.
type InstanceStatus string

// The statuses of an instance.
const (
	InstanceCreating InstanceStatus = "creating" // requested from the backend, not usable yet
	InstanceUp       InstanceStatus = "up"       // can run replicas
	InstanceAway     InstanceStatus = "away"     // a remote machine that does not answer: its replicas get no requests
	InstanceDeleting InstanceStatus = "deleting" // its deletion was requested
	InstanceDeleted  InstanceStatus = "deleted"  // no longer exists
)

// Offer is a machine that a backend can provide, with its price.
type Offer struct {
	Backend       string             `json:"backend"` // type of the backend: local
	Key           string             `json:"key"`     // the configured backend: key in backend.Set
	Region        string             `json:"region"`
	Type          string             `json:"type"`                    // instance type; the machine's name if it is owned
	InstanceType  string             `json:"instance_type,omitempty"` // the provider's type of an owned machine; empty: it has none but its name
	Zone          string             `json:"zone,omitempty"`          // part of the region; empty: not known
	Hardware      Hardware           `json:"hardware"`
	Spot          bool               `json:"spot"`
	Price         float64            `json:"price"`                 // dollars per hour
	OwnedInstance InstanceID         `json:"owned,omitempty"`       // the existing machine that replicas share; empty: a new one is rented for one replica
	Host          string             `json:"host,omitempty"`        // see Instance.Host
	Fleet         string             `json:"fleet,omitempty"`       // name of the fleet that an owned machine belongs to
	IsRemote      bool               `json:"is_remote,omitempty"`   // an owned machine that is reached over a network: it may go away and come back
	IsManaged     bool               `json:"is_managed,omitempty"`  // a control plane tells whether the machine lives: an engine that does not answer says nothing about its replicas
	AnyNode       bool               `json:"any_node,omitempty"`    // not one machine: the cluster's scheduler chooses the node, or waits for a new one
	Taken         Taken              `json:"taken,omitzero"`        // what others than dstack's replicas hold of an owned machine
	IsDraining    bool               `json:"is_draining,omitempty"` // gets no new replicas
	Unusable      string             `json:"unusable,omitempty"`    // why an owned machine can run nothing now, for the user; empty: it can
	Engine        EngineCapabilities `json:"engine"`
	Availability  Availability       `json:"availability,omitempty"` // of a machine to rent
	PriceSource   string             `json:"price_source,omitempty"` // where the price is from, for the user: catalogue of 2026-11-28; empty: nothing is paid
	IsIdle        bool               `json:"is_idle,omitempty"`      // OwnedInstance is a rented machine without replicas: one replica may take it, whole
}

// Availability is whether a machine can be had, as far as its backend knows. Its values are those of the wire format.
type Availability string

// The availabilities.
const (
	AvailabilityUnknown Availability = ""              // nobody knows before it is asked for
	Available           Availability = "available"     // there are some
	NotAvailable        Availability = "not_available" // the zone does not offer it, or lately had none left
	NoQuota             Availability = "no_quota"      // a quota of the account does not allow it
)

// IsShared reports whether several replicas share the machine: it is owned. A rented one serves one replica at a time, whole.
func (o *Offer) IsShared() bool { return o.OwnedInstance != "" && !o.IsIdle }

// ShownAvailability returns the availability of an offer as clients and users see it: that of an existing machine, too.
func (o *Offer) ShownAvailability() Availability {
	switch {
	case o.IsIdle:
		return "idle"
	case o.OwnedInstance != "" || o.AnyNode:
		return Available
	case o.Availability == AvailabilityUnknown:
		return "unknown"
	}
	return o.Availability
}

// ShowTo returns the offer with the hardware that a replica has of it: where the cluster chooses the node, that is
// what the replica asks for.
func (o Offer) ShowTo(c Claim) Offer {
	if o.AnyNode {
		o.Hardware = Hardware{CPUs: c.CPUs, MemoryMiB: c.MemoryMiB, DiskMiB: c.DiskMiB, GPUs: c.GPUs}
	}
	return o
}

// EngineCapabilities describes what the engine of a machine supports.
type EngineCapabilities struct {
	Name        string `json:"name"`                   // docker, process
	Containers  bool   `json:"containers"`             // the engine runs images
	SharesPorts bool   `json:"shares_ports"`           // replicas listen on the ports of the machine itself
	Mounts      bool   `json:"mounts"`                 // mounts volumes and host paths at any target
	ShowsServer bool   `json:"shows_server,omitempty"` // replicas may read the server's folder
}

// Hardware is the total capacity of a machine, whether in use or not.
type Hardware struct {
	CPUs      int    `json:"cpus"`
	Arch      string `json:"arch,omitempty"` // x86, arm; empty: not known
	MemoryMiB int64  `json:"memory_mib"`
	DiskMiB   int64  `json:"disk_mib"`
	GPUs      []GPU  `json:"gpus,omitempty"`
}

// Taken is the part of an owned machine's hardware that others than replicas hold.
type Taken struct {
	CPUs      int   `json:"cpus,omitempty"` // rounded up, so that what is free is not overstated
	MemoryMiB int64 `json:"memory_mib,omitempty"`
	DiskMiB   int64 `json:"disk_mib,omitempty"`
	GPUs      int   `json:"gpus,omitempty"` // any of Hardware.GPUs: the cluster assigns the devices itself
}

// GPU is one graphics processor of a machine.
type GPU struct {
	ID         string `json:"id"`              // the driver's identifier: GPU-1b2c… (NVIDIA), or the device in /dev/dri: renderD128 (AMD)
	Maker      string `json:"maker,omitempty"` // nvidia, amd; empty: unknown
	Name       string `json:"name"`            // model name as in configurations: A100, H200, RTX4090
	MemoryMiB  int64  `json:"memory_mib"`
	Capability [2]int `json:"capability"` // compute capability, major and minor; zero: unknown
	// Fraction is the part of one card that the machine has, with MemoryMiB of that part; 0: the whole card.
	Fraction float64 `json:"fraction,omitempty"`
}

// Requirements is what a replica requires of a machine. A nil pointer or an
// empty list imposes no restriction. Defaults in Resources apply to rented
// machines only; for owned machines see spec.Resources.Explicit.
type Requirements struct {
	Run           RunID     // whose replicas are spread over owned machines; empty: there is no run yet
	Template      int       // the replica's template revision: replicas of one template are spread before all others
	Project       ProjectID // whose machines may be used; backends of hosts offer only those of the project
	Resources     spec.Resources
	Port          int
	AnyPort       bool   // the replica listens on the port that its engine chooses, so it claims none of a machine
	IsGlobalAdmin bool   // the author of the revision is a global admin, so it may run as plain processes
	NeedsImage    bool   // the service names an image, so its engine must run containers
	OuterDir      string // a working directory outside of the attempt's own folder, which only containers have; empty: none
	OuterPath     string // a path outside of the attempt's own folder, which only containers have; empty: none
	Backends      []string
	Regions       []string
	Zones         []string
	InstanceTypes []string
	Fleets        []string // only machines of these fleets
	InstanceName  string   // only the owned machine with this name; empty: any
	OwnedOnly     bool     // no machine is rented
	Spot          *bool    // nil: spot and on-demand machines are both accepted
	MaxPrice      *float64 // dollars per hour
	OnePerGPU     bool     // of machines to rent, only the cheapest of each kind and number of GPUs, in each region and market
	Pin           *Pin     // only the machines that have the service's volumes; nil: it has none
	HostPath      string   // a folder of the machine that the replica mounts; empty: none
}

// Pin limits a replica to the machines that have its volumes, or can attach them.
type Pin struct {
	Machines []InstanceID // these have all of them
	Clusters []string     // keys of the backends all of whose machines have all of them
	Zones    []Zone       // rented machines there can attach all of them
	Sharing  VolumeSharing
	Users    []string     // with Sharing: the runs that mount such a volume
	Away     []InstanceID // machines that do not answer: their replicas do not count as users
	Reason   string       // why other machines do not suit, for the user: the volume data is on gpu-1
	Advice   string       // what the user can do if none of the machines suits
}

// Zone is a part of a region of a configured cloud.
type Zone struct {
	Backend string // key in backend.Set
	Region  string
	Name    string // empty: any zone of the region
}

// VolumeSharing limits which replicas may mount a volume at the same time.
type VolumeSharing string

// The limits, the strictest last.
const (
	SharedByAll     VolumeSharing = ""            // replicas on all machines that have it
	SharedByMachine VolumeSharing = "one machine" // the replicas of one machine
	SharedByNobody  VolumeSharing = "one replica"
)

// Placement is a possible location for a replica: an offer and what the
// replica would claim of it.
type Placement struct {
	Offer Offer
	Claim Claim
	Free  string // what is free there, for the user: 1 of 2 GPUs free
}

// Rejection is an offer that does not meet the requirements, with the first
// constraint that it fails and the smallest change that would make it suit.
type Rejection struct {
	Offer      Offer
	Constraint Constraint
	Wanted     string   // what the constraint asks for: 24GB..
	Has        string   // what there is instead: 1×T4 16GB
	Reason     string   // both in words: needs gpu: 24GB..; has 1×T4 16GB
	Edits      []Edit   // the changes of the configuration after which the offer suits; empty: none helps
	WaitsFor   []string // holders of what is missing, such as "llama31 replica 0", if the offer suits once they left
	Help       string   // what to do, for the user: write gpu: 16GB; empty: nothing helps
}

// String returns why an offer does not suit, and what to do.
func (r Rejection) String() string {
	switch {
	case r.Help == "":
		return r.Reason
	case len(r.Edits) > 0 && len(r.WaitsFor) == 0:
		return r.Reason + ": " + r.Help
	}
	return r.Reason + "; " + r.Help
}

// Edit is a change of one field of a configuration.
type Edit struct {
	Field string `json:"field"` // its path: resources.gpu
	Value string `json:"value"` // empty: the field is removed
}

// Constraint is what an offer must satisfy: a field of the configuration, or a property
// of a machine. An offer is checked for each in this order.
type Constraint string

// The constraints, in the order in which they are checked.
const (
	ConstraintBackend        Constraint = "backends"
	ConstraintFleet          Constraint = "fleets"
	ConstraintRegion         Constraint = "regions"
	ConstraintZone           Constraint = "availability_zones"
	ConstraintInstanceType   Constraint = "instance_types"
	ConstraintInstanceName   Constraint = "instance_name"
	ConstraintCreationPolicy Constraint = "creation_policy"
	ConstraintSpotPolicy     Constraint = "spot_policy"
	ConstraintMaxPrice       Constraint = "max_price"
	ConstraintUsable         Constraint = "usable"       // the machine passed its checks
	ConstraintDraining       Constraint = "draining"     // the machine is not being drained
	ConstraintFailedLately   Constraint = "failed"       // no machine of the offer failed lately
	ConstraintRights         Constraint = "rights"       // the user may run plain processes
	ConstraintImage          Constraint = "image"        // its engine runs containers
	ConstraintWorkingDir     Constraint = "working_dir"  // its engine runs containers, which have other folders
	ConstraintFiles          Constraint = "files"        // its engine runs containers, which have other folders
	ConstraintVolumes        Constraint = "volumes"      // it has the service's volumes
	ConstraintFreeVolumes    Constraint = "free volumes" // replicas elsewhere do not keep volumes that only some can mount at a time
	ConstraintHostPath       Constraint = "host path"    // the user may mount its folders
	ConstraintArch           Constraint = "resources.cpu.arch"
	ConstraintCPU            Constraint = "resources.cpu"
	ConstraintMemory         Constraint = "resources.memory"
	ConstraintDisk           Constraint = "resources.disk"
	ConstraintGPU            Constraint = "resources.gpu"
	ConstraintFreeCPU        Constraint = "free cpu" // other replicas leave enough
	ConstraintFreeMemory     Constraint = "free memory"
	ConstraintFreeDisk       Constraint = "free disk"
	ConstraintFreeGPU        Constraint = "free gpu"
	ConstraintFreePort       Constraint = "free port"
	ConstraintSharedPort     Constraint = "shared port"  // the replicas of a run do not need one port of one machine
	ConstraintBudget         Constraint = "budget"       // the project may rent further machines
	ConstraintAvailability   Constraint = "availability" // as far as its backend knows, it can be had
)

// Allocation is the part of an instance's hardware that unfinished replicas
// hold. It is the sum of their claims.
type Allocation struct {
	CPUs      int
	MemoryMiB int64
	DiskMiB   int64
	GPUs      map[string]string // ID of the GPU → holder, for the user: "llama31 replica 0"
	Ports     map[int]string    // port of the machine → holder
	Runs      []RunShare        // the runs that have replicas there
}

// RunShare is how many unfinished replicas of a run with one template are on a machine.
type RunShare struct {
	Run      RunID
	Template int
	Replicas int
	Holder   string // the run, for the user; runs of other projects are not named
	HasSizes bool   // they hold CPUs, memory or disk
}
