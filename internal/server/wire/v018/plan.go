package v018

import (
	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// dryRunName replaces the name of the run in the job name of a plan, as in
// 0.18.10.
const dryRunName = "dry-run"

// maxOffers is how many offers a plan contains, as in 0.18.10.
const maxOffers = 50

// BuildPlan returns a plan: what one replica of each group runs, and the offers for it, best first.
func BuildPlan(answer wire.PlanAnswer) api.RunPlan {
	plan := api.RunPlan{ProjectName: answer.Project, User: answer.User, RunSpec: buildRunSpec(answer.Spec), JobPlans: []api.JobPlan{}}
	for _, g := range answer.Groups {
		plan.JobPlans = append(plan.JobPlans, BuildJobPlan(g))
	}
	return plan
}

// buildRunSpec returns a run's specification without what 0.18.10 does not know.
func buildRunSpec(rs dstack.RunSpec) dstack.RunSpec {
	rs.FileArchives, rs.Configuration.Fleets, rs.Profile.Fleets = nil, nil, nil
	rs.Configuration.AvailabilityZones, rs.Profile.AvailabilityZones = nil, nil
	return rs
}

// BuildPlanWithPool returns a plan for the published client: with the spec unchanged, because it submits that, and with the
// name of the pool, because it shows it.
func BuildPlanWithPool(answer wire.PlanAnswer) api.RunPlan {
	plan := BuildPlan(answer)
	plan.RunSpec.Profile.PoolName = spec.Text(NamePool(plan.RunSpec.Profile))
	return plan
}

// BuildJobPlan returns the plan of one replica of a group.
func BuildJobPlan(g wire.GroupPlan) api.JobPlan {
	job := api.JobPlan{JobSpec: BuildJobSpec(g.Spec, dryRunName, 0), Offers: []api.Offer{}, TotalOffers: max(g.Total, len(g.Placements))}
	highest := g.HighestPrice
	for i, p := range g.Placements {
		if i < maxOffers {
			job.Offers = append(job.Offers, BuildOffer(p))
		}
		highest = max(highest, p.Offer.Price)
	}
	if job.TotalOffers > 0 {
		job.MaxPrice = &highest
	}
	return job
}
