package v022

import (
	"slices"

	"dstack/internal/spec"
)

// ServiceConfiguration is the configuration of a service in an answer. Fields without a value are left out: not all
// clients accept null, and some do not know them.
type ServiceConfiguration struct {
	Type         string             `json:"type"`
	Name         spec.Text          `json:"name,omitempty"`
	Port         PortMapping        `json:"port"`
	Model        any                `json:"model,omitempty"`
	HTTPS        bool               `json:"https"`
	Auth         bool               `json:"auth"`
	Gateway      any                `json:"gateway"`  // true, false, a name, or null
	Replicas     *spec.Replicas     `json:"replicas"` // nil: Groups
	Groups       []Group            `json:"groups,omitempty"`
	Scaling      *Scaling           `json:"scaling,omitempty"`
	Probes       []Probe            `json:"probes,omitempty"`
	RateLimits   []spec.RateLimit   `json:"rate_limits"`
	Image        spec.Text          `json:"image,omitempty"`
	Entrypoint   spec.Text          `json:"entrypoint,omitempty"`
	WorkingDir   spec.Text          `json:"working_dir,omitempty"`
	HomeDir      string             `json:"home_dir"`
	RegistryAuth *spec.RegistryAuth `json:"registry_auth,omitempty"`
	Python       spec.Text          `json:"python,omitempty"`
	NVCC         *bool              `json:"nvcc,omitempty"`
	Env          spec.Env           `json:"env"`
	Setup        []string           `json:"setup"`
	Resources    Resources          `json:"resources"`
	Volumes      []spec.Mount       `json:"volumes"`
	Commands     []string           `json:"commands"`
	Files        []spec.File        `json:"files"`
	Repos        []spec.Repo        `json:"repos"`
	Params
}

// Group is a group of replicas. What is null is as in the service.
type Group struct {
	Name       string        `json:"name"`
	Replicas   spec.Replicas `json:"replicas"`
	Scaling    *Scaling      `json:"scaling"`
	Resources  Resources     `json:"resources"`
	SpotPolicy spec.Text     `json:"spot_policy"`
	Commands   []string      `json:"commands"`
	Image      spec.Text     `json:"image"`
	Python     spec.Text     `json:"python"`
	NVCC       *bool         `json:"nvcc"`
}

// Params are the fields that configurations and profiles have in common.
type Params struct {
	Backends       []string      `json:"backends,omitempty"`
	Regions        []string      `json:"regions,omitempty"`
	InstanceTypes  []string      `json:"instance_types,omitempty"`
	SpotPolicy     spec.Text     `json:"spot_policy,omitempty"`
	Retry          any           `json:"retry,omitempty"`        // true, false, RetryRule or null
	MaxDuration    any           `json:"max_duration,omitempty"` // seconds, off or null
	MaxPrice       *float64      `json:"max_price,omitempty"`
	CreationPolicy spec.Text     `json:"creation_policy,omitempty"`
	IdleDuration   *spec.Seconds `json:"idle_duration,omitempty"` // -1: off
	Fleets         []string      `json:"fleets,omitempty"`
	Zones          []string      `json:"availability_zones,omitempty"`
}

// Profile is a profile in an answer.
type Profile struct {
	Params
	Name    string `json:"name"`
	Default bool   `json:"default"`
}

// RetryRule says after which events a run is retried.
type RetryRule struct {
	OnEvents []string      `json:"on_events"`
	Duration *spec.Seconds `json:"duration,omitempty"`
}

// PortMapping is the port of a service.
type PortMapping struct {
	LocalPort     *int `json:"local_port"`
	ContainerPort int  `json:"container_port"`
}

// Scaling is the rule for the number of replicas.
type Scaling struct {
	Metric         string        `json:"metric"`
	Target         float64       `json:"target"`
	Window         *spec.Seconds `json:"window,omitempty"`
	ScaleUpDelay   spec.Seconds  `json:"scale_up_delay"`
	ScaleDownDelay spec.Seconds  `json:"scale_down_delay"`
}

// Probe is a probe of a configuration, and of a job.
type Probe struct {
	Type       string        `json:"type"`
	URL        string        `json:"url"`
	Method     string        `json:"method"`
	Headers    []spec.Header `json:"headers"`
	Body       spec.Text     `json:"body"`
	Timeout    spec.Seconds  `json:"timeout"`
	Interval   spec.Seconds  `json:"interval"`
	ReadyAfter int           `json:"ready_after"`
	UntilReady bool          `json:"until_ready"`
}

// Resources is what a replica requires of a machine.
type Resources struct {
	CPU     any                 `json:"cpu"` // a number, or CPU
	Memory  spec.Range[spec.GB] `json:"memory"`
	ShmSize *spec.GB            `json:"shm_size"`
	GPU     *GPU                `json:"gpu"`
	Disk    *spec.Disk          `json:"disk"`
}

// CPU is the required processors.
type CPU struct {
	Arch  spec.Text       `json:"arch"`
	Count spec.Range[int] `json:"count"`
}

// GPU is the required GPUs.
type GPU struct {
	Vendor            spec.Text            `json:"vendor"`
	Name              []string             `json:"name,omitempty"`
	Count             spec.Range[int]      `json:"count"`
	Memory            *spec.Range[spec.GB] `json:"memory"`
	TotalMemory       *spec.Range[spec.GB] `json:"total_memory"`
	ComputeCapability *[2]int              `json:"compute_capability"`
}

// Values that clients accept. They refuse a whole answer for another one.
var (
	knownPythons = []spec.Text{"3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"}
	knownWindows = []spec.Seconds{30, 60, 300}
)

// buildConfiguration returns a configuration.
func buildConfiguration(s spec.Service) ServiceConfiguration {
	c := ServiceConfiguration{
		Type: "service", Name: s.Name, Port: PortMapping{s.Port.Local, s.Port.Container}, HTTPS: s.HTTPS, Auth: s.Auth,
		Replicas: &s.Replicas, Scaling: buildScaling(s.Scaling, s.Replicas), Probes: buildProbes(s.Probes), RateLimits: orEmpty(s.RateLimits),
		Image: s.Image, Entrypoint: s.Entrypoint, WorkingDir: s.WorkingDir, HomeDir: s.HomeDir, RegistryAuth: s.RegistryAuth,
		NVCC: s.NVCC, Env: s.Env, Setup: orEmpty(s.Setup), Resources: buildResources(s.Resources), Volumes: orEmpty(s.Volumes),
		Commands: orEmpty(s.Commands), Files: orEmpty(s.Files), Repos: orEmpty(s.Repos), Params: buildParams(s.Params),
	}
	if s.Model != nil {
		c.Model = s.Model
	}
	switch s.Gateway {
	case "":
	case spec.GatewayDefault, spec.GatewayNone:
		c.Gateway = s.Gateway == spec.GatewayDefault
	default:
		c.Gateway = s.Gateway
	}
	c.Python = buildPython(s.Python)
	for _, g := range s.Groups {
		c.Replicas = nil
		c.Groups = append(c.Groups, Group{Name: g.Name, Replicas: g.Replicas, Scaling: buildScaling(g.Scaling, g.Replicas),
			Resources: buildResources(g.Resources), SpotPolicy: g.SpotPolicy, Commands: orEmpty(g.Commands), Image: g.Image,
			Python: buildPython(g.Python), NVCC: g.NVCC})
	}
	return c
}

// buildPython returns a version of Python if clients accept it.
func buildPython(version spec.Text) spec.Text {
	if slices.Contains(knownPythons, version) {
		return version
	}
	return ""
}

func buildProfile(p spec.Profile) Profile {
	return Profile{Params: buildParams(p.Params), Name: p.Name, Default: p.Default}
}

func buildParams(p spec.Params) Params {
	out := Params{Regions: p.Regions, InstanceTypes: p.InstanceTypes, SpotPolicy: p.SpotPolicy, MaxPrice: p.MaxPrice,
		CreationPolicy: p.CreationPolicy, IdleDuration: p.TerminationIdleTime, Fleets: p.Fleets, Zones: p.AvailabilityZones}
	for _, name := range p.Backends {
		out.Backends = append(out.Backends, encodeBackend(name))
	}
	if p.TerminationPolicy == spec.KeepIdle {
		out.IdleDuration = new(spec.Seconds(-1))
	}
	if p.MaxDuration != nil && p.MaxDuration.Off {
		out.MaxDuration = "off"
	} else if p.MaxDuration != nil {
		out.MaxDuration = p.MaxDuration.Seconds
	}
	out.Retry = buildRetry(p)
	return out
}

// allRetryEvents are the events of a rule that names none.
var allRetryEvents = []string{spec.EventNoCapacity, spec.EventInterruption, spec.EventError}

// buildRetry returns the rule for retries, whose deprecated spelling these clients do not have.
func buildRetry(p spec.Params) any {
	switch {
	case p.Retry != nil && p.Retry.Always != nil:
		return *p.Retry.Always
	case p.Retry != nil && len(p.Retry.OnEvents) > 0:
		return RetryRule{p.Retry.OnEvents, p.Retry.Duration}
	case p.Retry != nil && p.Retry.Duration != nil:
		return RetryRule{allRetryEvents, p.Retry.Duration}
	case p.Retry == nil && p.RetryPolicy != nil && p.RetryPolicy.Retry:
		return RetryRule{allRetryEvents, p.RetryPolicy.Duration}
	}
	return nil
}

// buildScaling returns the rule for the number of replicas, nil where the number is fixed: clients refuse both together.
func buildScaling(s *spec.Scaling, replicas spec.Replicas) *Scaling {
	if s == nil || replicas.Min == replicas.Max {
		return nil
	}
	out := &Scaling{Metric: spec.MetricRPS, Target: s.Target, ScaleUpDelay: s.ScaleUpDelay, ScaleDownDelay: s.ScaleDownDelay}
	if w := s.Window; w != nil && slices.Contains(knownWindows, *w) {
		out.Window = w
	}
	return out
}

// buildProbes returns the probes, nil if a configuration does not set them. Clients refuse the body of a get.
func buildProbes(all []spec.Probe) []Probe {
	if all == nil {
		return nil
	}
	out := []Probe{}
	for _, p := range all {
		one := Probe(p)
		if p.Method == "get" || p.Method == "head" {
			one.Body = ""
		}
		out = append(out, one)
	}
	return out
}

func buildResources(r spec.Resources) Resources {
	out := Resources{CPU: buildCPU(r), Memory: r.Memory, ShmSize: r.ShmSize, Disk: r.Disk}
	if g := r.GPU; g != nil {
		out.GPU = &GPU{Vendor: spec.Text(g.Maker()), Name: g.Name, Count: g.Count, Memory: g.Memory,
			TotalMemory: g.TotalMemory, ComputeCapability: g.ComputeCapability}
	}
	return out
}

// buildCPU returns only the number if the type does not matter: the first clients of 0.19 know no types, and later ones
// read both.
func buildCPU(r spec.Resources) any {
	if r.CPUArch == "" {
		return r.CPU
	}
	return CPU{r.CPUArch, r.CPU}
}

func orEmpty[S ~[]E, E any](list S) S {
	if list == nil {
		return S{}
	}
	return list
}
