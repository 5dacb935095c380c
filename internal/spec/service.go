// Package spec is what a user asks for: a *.dstack.yml file, read strictly
// and reported on with file, line and a hint. Its types marshal to the
// normalised wire form of spec §4.5, keys in that order, and unmarshal from
// it and from every spelling that a file may use.
package spec

import "encoding/json"

// Service is one `type: service` configuration, with defaults filled in.
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

	// The later dialect. The wire of 0.18.10 has none of it; see SourceJSON.
	Probes     []Probe     `json:"-"`
	RateLimits []RateLimit `json:"-"`

	// Ours. See Drain and Held for the defaults.
	DrainTimeout *Seconds `json:"-"`
	Hold         *Hold    `json:"-"`

	UnsupportedNotes []UnsupportedNote `json:"-"`
}

// Params are the fields that a configuration and a profile share.
type Params struct {
	Backends            []string     `json:"backends"`
	Regions             []string     `json:"regions"`
	InstanceTypes       []string     `json:"instance_types"`
	SpotPolicy          Text         `json:"spot_policy"` // spot, on-demand, auto
	Retry               *Retry       `json:"retry"`
	RetryPolicy         *RetryPolicy `json:"retry_policy"`
	MaxDuration         *MaxDuration `json:"max_duration"`
	MaxPrice            *float64     `json:"max_price"` // dollars an hour
	PoolName            Text         `json:"pool_name"`
	InstanceName        Text         `json:"instance_name"`
	CreationPolicy      Text         `json:"creation_policy"`
	TerminationPolicy   Text         `json:"termination_policy"`
	TerminationIdleTime *Seconds     `json:"termination_idle_time"`

	UsesIdleDuration bool `json:"-"` // written as idle_duration; the wire has the old names
}

// Profile is a named set of Params.
type Profile struct {
	Params
	Name             string            `json:"name"`
	Default          bool              `json:"default"`
	UnsupportedNotes []UnsupportedNote `json:"-"`
}

// Text is a string whose absence the wire writes as null.
type Text string

// Seconds is a length of time in whole seconds.
type Seconds int64

// MaxDuration is a limit in seconds, or off. The wire form is a string:
// "7200" or "off".
type MaxDuration struct {
	Off     bool
	Seconds Seconds
}

// Port is where the service listens. Local is inert for services.
type Port struct {
	Local     *int `json:"local_port"`
	Container int  `json:"container_port"`
}

// Model publishes the service on the OpenAI-compatible endpoint. Prefix
// belongs to the openai format, ChatTemplate and EOSToken to tgi; the wire
// form has only those of its format.
type Model struct {
	Type         string
	Name         string
	Format       string // "openai" or "tgi"
	Prefix       string
	ChatTemplate Text
	EOSToken     Text

	// Ours: the wire of 0.18.10 has neither.
	BOSToken Text
	Kwargs   json.RawMessage // variables for the template, a JSON object; nil: none
}

// Replicas is how many copies run.
type Replicas struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Scaling is the rule between Replicas.Min and Max.
type Scaling struct {
	Metric         string
	Target         float64 // a replica
	ScaleUpDelay   Seconds
	ScaleDownDelay Seconds
	Window         *Seconds // of the later dialect; nil: a minute
}

// RegistryAuth is a login to the image's registry.
type RegistryAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Mount is a volume, or a folder of the machine, and where it is mounted.
type Mount struct {
	Name         string // of the volume; empty for a folder
	Path         string
	InstancePath string // the folder; of the later dialect
	Optional     bool   // whether the replica may run without the folder
}

// Retry says which endings are tried again, and for how long. The wire form
// is a bool or a mapping; Always is the former.
type Retry struct {
	Always   *bool
	OnEvents []string // no-capacity, interruption, error
	Duration *Seconds
}

// The events that a Retry can name.
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

// Resources is what a replica needs of its machine.
type Resources struct {
	CPU     Range[int] `json:"cpu"`
	Memory  Range[GB]  `json:"memory"`
	ShmSize *GB        `json:"shm_size"`
	GPU     *GPU       `json:"gpu"`
	Disk    *Disk      `json:"disk"`

	// Explicit tells what was written and what is a default, which is not held
	// against a machine that its user owns.
	Explicit Explicit `json:"-"`
}

// Explicit is which sizes somebody wrote down.
type Explicit struct{ CPU, Memory, Disk bool }

// GPU is which graphics processors a replica needs.
type GPU struct {
	Vendor            Text       `json:"-"` // of the later dialect, as it was written; see Maker
	Name              []string   `json:"name"`
	Count             Range[int] `json:"count"`
	Memory            *Range[GB] `json:"memory"`
	TotalMemory       *Range[GB] `json:"total_memory"`
	ComputeCapability *[2]int    `json:"compute_capability"` // at least
}

// Disk is how much room a replica needs.
type Disk struct {
	Size Range[GB] `json:"size"`
}

// GB is a size in gigabytes of 1024³ bytes.
type GB float64

// Range is from Min to Max, both included; nil is open.
type Range[T int | GB] struct {
	Min *T `json:"min"`
	Max *T `json:"max"`
}

// Env is environment variables in the order in which they were written.
type Env []EnvVar

// EnvVar is one variable. Without a value it must be given by whoever
// applies, under the name From (usually Name itself).
type EnvVar struct {
	Name  string
	Value string
	Open  bool   // no value yet
	From  string // where the value is looked up
}

// The default sizes of Resources.
const (
	DefaultCPU    = 2
	DefaultMemory = GB(8)
	DefaultDisk   = GB(100)
)
