package v022

import (
	"cmp"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
)

// RunPlan answers runs/get_plan.
type RunPlan struct {
	ProjectName      string         `json:"project_name"`
	User             string         `json:"user"`
	RunSpec          AnswerRunSpec  `json:"run_spec"`
	EffectiveRunSpec *AnswerRunSpec `json:"effective_run_spec"`
	JobPlans         []JobPlan      `json:"job_plans"`
	CurrentResource  *Run           `json:"current_resource"`
	Action           string         `json:"action"` // create, update
}

// JobPlan lists the offers for one job of a RunPlan, best first.
type JobPlan struct {
	JobSpec     JobSpec  `json:"job_spec"`
	Offers      []Offer  `json:"offers"`
	TotalOffers int      `json:"total_offers"`
	MaxPrice    *float64 `json:"max_price"`
}

// Offer is a machine that a backend can provide.
type Offer struct {
	Backend         string       `json:"backend"`
	Instance        InstanceType `json:"instance"`
	Region          string       `json:"region"`
	Price           float64      `json:"price"`
	Availability    string       `json:"availability"`
	InstanceRuntime string       `json:"instance_runtime"`
}

// InstanceType is the type of a machine and its hardware.
type InstanceType struct {
	Name      string   `json:"name"`
	Resources Hardware `json:"resources"`
}

// Hardware is the hardware of a machine.
type Hardware struct {
	CPUs      int           `json:"cpus"`
	CPUArch   *string       `json:"cpu_arch"`
	MemoryMiB int64         `json:"memory_mib"`
	GPUs      []HardwareGPU `json:"gpus"`
	Spot      bool          `json:"spot"`
	Disk      api.Disk      `json:"disk"`
}

// HardwareGPU is one GPU of a machine.
type HardwareGPU struct {
	Vendor    *string `json:"vendor"`
	Name      string  `json:"name"`
	MemoryMiB int64   `json:"memory_mib"`
}

// defaultMaxOffers is how many offers a plan has if the client does not say.
const defaultMaxOffers = 50

// BuildPlan returns a plan. Where a run with this name is unfinished, applying the plan changes that run.
func BuildPlan(in GetPlan, answer wire.PlanAnswer) RunPlan {
	plan := RunPlan{ProjectName: answer.Project, User: answer.User, RunSpec: buildRunSpec(answer.Spec), JobPlans: []JobPlan{}, Action: "create"}
	for _, g := range answer.Groups {
		one := buildJobPlan(in, g)
		if len(answer.Spec.Configuration.Groups) > 0 {
			one.JobSpec.ReplicaGroup = g.Group
		}
		plan.JobPlans = append(plan.JobPlans, one)
	}
	if in.isForOffers() { // the client shows what it has sent
		plan.RunSpec.Configuration, plan.RunSpec.Profile = in.RunSpec.Configuration.sent, nil
	}
	if answer.Existing != nil {
		run := buildRun(*answer.Existing, 1)
		plan.CurrentResource, plan.Action = &run, "update"
	}
	return plan
}

func buildJobPlan(in GetPlan, g wire.GroupPlan) JobPlan {
	old := v018.BuildJobPlan(g)
	plan := JobPlan{JobSpec: buildJobSpec(g.Spec, old.JobSpec), Offers: []Offer{}, TotalOffers: old.TotalOffers, MaxPrice: old.MaxPrice}
	placements := g.Placements
	if in.ReverseOffers {
		placements = slices.Clone(placements)
		slices.SortStableFunc(placements, func(a, b dstack.Placement) int { return cmp.Compare(b.Offer.Price, a.Offer.Price) })
	}
	for _, p := range placements[:min(len(placements), valueOr(in.MaxOffers, defaultMaxOffers))] {
		plan.Offers = append(plan.Offers, buildOffer(p.Offer.ShowTo(p.Claim)))
	}
	return plan
}

func buildOffer(o dstack.Offer) Offer {
	runtime := "runner"
	if o.Engine.Containers {
		runtime = "shim"
	}
	return Offer{Backend: encodeBackend(o.Backend), Instance: buildInstanceType(o), Region: o.Region, Price: o.Price,
		Availability: string(o.ShownAvailability()), InstanceRuntime: runtime}
}

// knownArchs and knownVendors are the names that clients accept.
var (
	knownArchs   = []string{"x86", "arm"}
	knownVendors = []string{"nvidia", "amd", "google", "intel", "tenstorrent"}
)

func buildInstanceType(o dstack.Offer) InstanceType {
	hw := o.Hardware
	gpus := make([]HardwareGPU, 0, len(hw.GPUs))
	for _, g := range hw.GPUs {
		gpus = append(gpus, HardwareGPU{Vendor: ifKnown(g.Maker, knownVendors), Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	return InstanceType{Name: o.Type, Resources: Hardware{CPUs: hw.CPUs, CPUArch: ifKnown(hw.Arch, knownArchs), MemoryMiB: hw.MemoryMiB,
		GPUs: gpus, Spot: o.Spot, Disk: api.Disk{SizeMiB: hw.DiskMiB}}}
}

// ifKnown returns a word if clients accept it, and nil otherwise.
func ifKnown(word string, known []string) *string {
	if word = strings.ToLower(word); slices.Contains(known, word) {
		return &word
	}
	return nil
}
