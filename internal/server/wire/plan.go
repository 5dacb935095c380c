package wire

import (
	"dstack/internal/api"
	"dstack/internal/dstack"
)

// dryRunName stands for the run's name in the job name of a plan, as in the
// reference.
const dryRunName = "dry-run"

// maxOffers is how many offers a plan lists, as in the reference.
const maxOffers = 50

// BuildPlan returns a plan in the form of the reference: what one replica runs
// and where it could go, best first.
func BuildPlan(project, user string, rs dstack.RunSpec, placements []dstack.Placement) api.RunPlan {
	job := api.JobPlan{JobSpec: BuildJobSpec(rs, dryRunName, 0), Offers: []api.Offer{}, TotalOffers: len(placements)}
	for i, p := range placements {
		if i < maxOffers {
			job.Offers = append(job.Offers, BuildOffer(p))
		}
		if job.MaxPrice == nil || p.Offer.Price > *job.MaxPrice {
			job.MaxPrice = &p.Offer.Price
		}
	}
	return api.RunPlan{ProjectName: project, User: user, RunSpec: rs, JobPlans: []api.JobPlan{job}}
}
