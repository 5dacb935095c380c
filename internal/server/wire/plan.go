package wire

import (
	"dstack/internal/api"
	"dstack/internal/dstack"
)

// dryRunName replaces the name of the run in the job name of a plan, as in
// 0.18.10.
const dryRunName = "dry-run"

// maxOffers is how many offers a plan contains, as in 0.18.10.
const maxOffers = 50

// BuildPlan returns a plan in the wire format: what one replica runs, and the
// offers for it, best first.
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
