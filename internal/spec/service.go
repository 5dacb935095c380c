// Package spec parses the configurations that users write: *.dstack.yml files
// and profiles.yml. It parses strictly and reports every problem with file,
// line and a hint. The types marshal to the normal form of the 0.18.10 wire
// format (spec §4.5) with keys in its order. They unmarshal from that form and
// from every spelling that a file may use.
//
// The tables of fields in this package (mapping, field) are the single source
// for the parser, the JSON Schema and the reference in docs/reference.
package spec

import "encoding/json"

// Service is a configuration with `type: service`, with defaults filled in.
type Service struct {
	Port         Port          `json:"port"`
	Model        *Model        `json:"model"`
	HTTPS        bool          `json:"https"`
	Auth         bool          `json:"auth"`
	Replicas     Replicas      `json:"replicas"`
	Scaling      *Scaling      `json:"scaling"`
	Type         string        `json:"type"`
	Name         Text          `json:"name"`
	Image        Text          `json:"image"`
	Entrypoint   Text          `json:"entrypoint"`
	WorkingDir   Text          `json:"working_dir"`
	HomeDir      string        `json:"home_dir"`
	RegistryAuth *RegistryAuth `json:"registry_auth"`
	Python       Text          `json:"python"`
	NVCC         *bool         `json:"nvcc"`
	Env          Env           `json:"env"`
	Setup        []string      `json:"setup"`
	Resources    Resources     `json:"resources"`
	Volumes      []Mount       `json:"volumes"`
	Commands     []string      `json:"commands"`
	Params

	// Groups divide the replicas; nil: all are alike. With groups, Replicas is the
	// range of all replicas together, Scaling and Commands are empty, and Resources
	// ask for nothing; see ForGroup.
	Groups []Group `json:"-"`

	// Fields of versions after 0.18.10. The wire format does not have them; see
	// SourceJSON.
	Gateway    Text        `json:"-"` // GatewayDefault, GatewayNone or a gateway's name; empty: not set
	Probes     []Probe     `json:"-"` // nil: not set, so that a model is checked; empty: no probe at all
	RateLimits []RateLimit `json:"-"`
	Files      []File      `json:"-"`
	Repos      []Repo      `json:"-"` // at most one

	// Fields that the original dstack does not have. See EffectiveDrainTimeout
	// and EffectiveHold for the defaults.
	DrainTimeout *Seconds `json:"-"`
	Hold         *Hold    `json:"-"`

	UnsupportedNotes []UnsupportedNote `json:"-"`
}

// Params are the fields that configurations and profiles share.
type Params struct {
	Backends            []string     `json:"backends"`
	Regions             []string     `json:"regions"`
	InstanceTypes       []string     `json:"instance_types"`
	SpotPolicy          Text         `json:"spot_policy"` // spot, on-demand, auto
	Retry               *Retry       `json:"retry"`
	RetryPolicy         *RetryPolicy `json:"retry_policy"`
	MaxDuration         *MaxDuration `json:"max_duration"`
	MaxPrice            *float64     `json:"max_price"` // dollars per hour
	PoolName            Text         `json:"pool_name"`
	InstanceName        Text         `json:"instance_name"`
	CreationPolicy      Text         `json:"creation_policy"`
	TerminationPolicy   Text         `json:"termination_policy"`
	TerminationIdleTime *Seconds     `json:"termination_idle_time"`
	Fleets              []string     `json:"fleets,omitempty"`             // names; since versions after 0.18.10
	AvailabilityZones   []string     `json:"availability_zones,omitempty"` // since versions after 0.18.10
}

// Values of Params.TerminationPolicy: what becomes of an idle machine.
const (
	KeepIdle   = "dont-destroy"
	DeleteIdle = "destroy-after-idle" // after TerminationIdleTime
)

// Profile is a named set of Params.
type Profile struct {
	Params
	Name             string            `json:"name"`
	Default          bool              `json:"default"`
	UnsupportedNotes []UnsupportedNote `json:"-"`
}

// Text is a string that is null in the wire format if it is empty.
type Text string

// Seconds is a duration in whole seconds.
type Seconds int64

// MaxDuration is a limit in seconds, or off. Its wire form is a string, such as
// "7200" or "off".
type MaxDuration struct {
	Off     bool
	Seconds Seconds
}

// Port is the port on which the service listens. Local has no effect for
// services. With Auto, the service listens on the port that it gets in the
// variable PORT: an engine whose replicas share the ports of a machine chooses
// it, elsewhere it is Container. The wire form of 0.18.10 has Container only.
type Port struct {
	Local     *int `json:"local_port"`
	Container int  `json:"container_port"`
	Auto      bool `json:"-"`
}

// DefaultAutoPort is the Container port of `port: auto`.
const DefaultAutoPort = 8000

// PortVariable is the environment variable that tells a service its port.
const PortVariable = "PORT"

// Model publishes the service on the OpenAI-compatible endpoint. Prefix is used
// with format openai, the fields from ChatTemplate on with format tgi. The wire
// form contains only the fields of its format.
type Model struct {
	Type         string
	Name         string
	Format       string // "openai" or "tgi"
	Prefix       string
	ChatTemplate Text
	EOSToken     Text

	// Fields that the original dstack does not have.
	BOSToken Text
	Kwargs   json.RawMessage // JSON object with variables for the template; nil: none
}

// Replicas is the range of the number of replicas.
type Replicas struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Scaling is the rule that chooses the number of replicas within the range.
type Scaling struct {
	Metric         string
	Target         float64 // value of the metric for each replica
	ScaleUpDelay   Seconds
	ScaleDownDelay Seconds
	Window         *Seconds // averaging window; nil: one minute
}

// RegistryAuth is a login to the registry of the image.
type RegistryAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Mount is a volume, or a folder of the machine, that is mounted into the
// container.
type Mount struct {
	Name         string   // name of the volume; empty for a folder
	OtherNames   []string // volumes of other zones or nodes, one of which is mounted instead; since versions after 0.18.10
	Path         string
	InstancePath string // the folder on the machine; since versions after 0.18.10
	Optional     bool   // the replica may run without the folder
}

// Retry lists the events after which a replica is retried, and for how long.
// The wire form is a boolean (Always) or a mapping.
type Retry struct {
	Always   *bool
	OnEvents []string // no-capacity, interruption, error
	Duration *Seconds
}

// The events of a Retry.
const (
	EventNoCapacity   = "no-capacity"
	EventInterruption = "interruption"
	EventError        = "error"
)

// RetryPolicy is the deprecated spelling of Retry.
type RetryPolicy struct {
	Retry    bool     `json:"retry"`
	Duration *Seconds `json:"duration"`
}

// Resources is what a replica requires of a machine.
type Resources struct {
	CPU     Range[int] `json:"cpu"`
	CPUArch Text       `json:"-"` // x86 or arm; empty: any
	Memory  Range[GB]  `json:"memory"`
	ShmSize *GB        `json:"shm_size"`
	GPU     *GPU       `json:"gpu"`
	Disk    *Disk      `json:"disk"`

	// Explicit tells explicit sizes from defaults. Defaults do not apply to
	// machines that the user owns.
	Explicit Explicit `json:"-"`
}

// Explicit tells which sizes the user set.
type Explicit struct{ CPU, Memory, Disk bool }

// GPU is the requirement for graphics processors.
type GPU struct {
	Vendor            Text       `json:"-"` // as written; see Maker
	Name              []string   `json:"name"`
	Count             Range[int] `json:"count"`
	Memory            *Range[GB] `json:"memory"`
	TotalMemory       *Range[GB] `json:"total_memory"`
	ComputeCapability *[2]int    `json:"compute_capability"` // minimum, major and minor
}

// Disk is the required disk size.
type Disk struct {
	Size Range[GB] `json:"size"`
}

// GB is a size in gigabytes of 1024³ bytes.
type GB float64

// Range is a range from Min to Max, both included. A nil end is open.
type Range[T int | GB] struct {
	Min *T `json:"min"`
	Max *T `json:"max"`
}

// Env is a list of environment variables in the order in which they were
// written.
type Env []EnvVar

// EnvVar is an environment variable. An open variable has no value in the
// configuration: the value is the variable named From, usually the same as Name,
// in the environment of the user who applies the configuration.
type EnvVar struct {
	Name  string
	Value string
	Open  bool   // has no value yet
	From  string // name under which the value is looked up
}

// The default sizes of Resources.
const (
	DefaultCPU    = 2
	DefaultMemory = GB(8)
	DefaultDisk   = GB(100)
)
