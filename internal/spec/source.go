package spec

import (
	"encoding/json"
	"strconv"
)

// SourceJSON returns the wire form extended by what the 0.18.10 format cannot
// express: which sizes are explicit (these are written as text, defaults are
// left out), the fields of later versions, and additional fields. This is the
// form that is sent and stored; it unmarshals to an equal Service, except for
// UnsupportedNotes. Clients of versions that have groups can read it, too.
func (s Service) SourceJSON() ([]byte, error) {
	s.Env, s.Setup = orEmpty(s.Env), orEmpty(s.Setup)
	s.Volumes, s.Commands = orEmpty(s.Volumes), orEmpty(s.Commands)
	source := sourceService{plainService: plainService(s), Port: sourcePort(s.Port), Resources: s.Resources.newSource(),
		Gateway: gatewayJSON(s.Gateway), Probes: s.Probes, RateLimits: s.RateLimits, Files: s.Files, Repos: s.Repos, DrainTimeout: s.DrainTimeout, Hold: s.Hold}
	source.Type = "service"
	if source.Replicas = &s.Replicas; len(s.Groups) > 0 {
		source.Replicas = nil // the sum of the groups
	}
	for _, g := range s.Groups {
		source.Groups = append(source.Groups, g.newSource())
	}
	source.Scaling = s.Scaling.newSource()
	if s.Model != nil {
		source.Model = &sourceModel{*s.Model}
	}
	return marshalJSON(source)
}

// sourceModel is a model with all fields of its format.
type sourceModel struct{ Model }

// MarshalJSON writes the keys of the model's format, including keys that 0.18.10
// does not have.
func (m sourceModel) MarshalJSON() ([]byte, error) {
	if m.Format != "tgi" {
		return marshalJSON(m.Model)
	}
	return marshalJSON(struct {
		tgiModel
		BOSToken Text            `json:"bos_token,omitempty"`
		Kwargs   json.RawMessage `json:"chat_template_kwargs,omitempty"`
	}{m.wireTGI(), m.BOSToken, m.Kwargs})
}

type plainService Service

// sourceService overrides the fields of a service whose form differs in
// SourceJSON.
type sourceService struct {
	plainService
	Port       sourcePort      `json:"port"`
	Model      *sourceModel    `json:"model"`
	Replicas   *Replicas       `json:"replicas"`
	Scaling    *sourceScaling  `json:"scaling"`
	Resources  sourceResources `json:"resources"`
	Groups     []sourceGroup   `json:"groups,omitempty"`
	Gateway    gatewayJSON     `json:"gateway,omitempty"`
	Probes     []Probe         `json:"probes,omitzero"`
	RateLimits []RateLimit     `json:"rate_limits,omitempty"`
	Files      []File          `json:"files,omitempty"`
	Repos      []Repo          `json:"repos,omitempty"`

	DrainTimeout *Seconds `json:"drain_timeout,omitempty"`
	Hold         *Hold    `json:"hold,omitempty"`
}

type sourceScaling struct {
	wireScaling
	Window *Seconds `json:"window,omitempty"`
}

func (s *Scaling) newSource() *sourceScaling {
	if s == nil {
		return nil
	}
	return &sourceScaling{s.newWire(), s.Window}
}

// sourceGroup is a group in SourceJSON.
type sourceGroup struct {
	Name       string          `json:"name"`
	Replicas   Replicas        `json:"replicas"`
	Scaling    *sourceScaling  `json:"scaling"`
	Resources  sourceResources `json:"resources"`
	SpotPolicy Text            `json:"spot_policy"`
	Commands   []string        `json:"commands"`
	Image      Text            `json:"image"`
	Python     Text            `json:"python"`
	NVCC       *bool           `json:"nvcc"`
}

func (g Group) newSource() sourceGroup {
	return sourceGroup{Name: g.Name, Replicas: g.Replicas, Scaling: g.Scaling.newSource(), Resources: g.Resources.newSource(),
		SpotPolicy: g.SpotPolicy, Commands: orEmpty(g.Commands), Image: g.Image, Python: g.Python, NVCC: g.NVCC}
}

type sourceResources struct {
	CPU     *string          `json:"cpu,omitempty"`
	Memory  *string          `json:"memory,omitempty"`
	ShmSize *GB              `json:"shm_size"`
	GPU     *sourceGPU       `json:"gpu"`
	Disk    *json.RawMessage `json:"disk,omitempty"`
}

type sourceGPU struct {
	Vendor Text `json:"vendor"`
	wireGPU
}

func (r Resources) newSource() sourceResources {
	s := sourceResources{ShmSize: r.ShmSize}
	if r.GPU != nil {
		s.GPU = &sourceGPU{r.GPU.Vendor, wireGPU(*r.GPU)}
	}
	switch {
	case r.Explicit.CPU:
		s.CPU = new(r.formatCPU())
	case r.CPUArch != "":
		s.CPU = new(string(r.CPUArch))
	}
	if r.Explicit.Memory {
		s.Memory = new(r.Memory.String())
	}
	switch {
	case r.Disk == nil:
		s.Disk = new(json.RawMessage("null"))
	case r.Explicit.Disk:
		s.Disk = new(json.RawMessage(strconv.Quote(r.Disk.Size.String())))
	}
	return s
}

// instanceMount is a mounted folder of the machine.
type instanceMount struct {
	InstancePath string `json:"instance_path"`
	Path         string `json:"path"`
	Optional     bool   `json:"optional"`
}

func (m Mount) wireInstanceMount() instanceMount {
	return instanceMount{m.InstancePath, m.Path, m.Optional}
}
