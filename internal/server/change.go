package server

import (
	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

// listChanges is what differs for the service, wherever it was written, and how
// it comes about.
func listChanges(from, to dstack.RunSpec) []api.Change {
	list := []api.Change{}
	for _, d := range job.CompareSpecs(from, to) {
		list = append(list, api.Change{Path: d.Path, From: d.From, To: d.To, Strategy: string(d.Strategy)})
	}
	return list
}

// needsRollout says that new containers are needed. Applied without a change, a run
// is started anew.
func needsRollout(from, to dstack.RunSpec) bool {
	return len(job.CompareSpecs(from, to)) == 0 || job.NeedsRollout(from, to)
}

// overallStrategy is how changes come about together.
func overallStrategy(list []api.Change) (all string) {
	for _, c := range list {
		if c.Strategy != api.StrategyInPlace {
			return c.Strategy
		}
		all = c.Strategy
	}
	return all
}

// listChanges is what a plan would change. Where there is no room for a new
// replica beside an old one, the old one has to leave first.
func (p runPlan) listChanges() []api.Change {
	list := listChanges(p.existing.Run.Spec, p.spec)
	for i := range list {
		if list[i].Strategy == api.StrategyRolling && p.mustRecreate {
			list[i].Strategy = api.StrategyRecreate
		}
	}
	return list
}
