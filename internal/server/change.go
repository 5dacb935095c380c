package server

import (
	"slices"

	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

// listChanges lists the fields that differ between two specs, each with the
// strategy by which the change is applied.
func listChanges(from, to dstack.RunSpec) []api.Change {
	list := []api.Change{}
	for _, d := range job.CompareSpecs(from, to) {
		list = append(list, api.Change{Path: d.Path, From: d.From, To: d.To, Strategy: string(d.Strategy)})
	}
	return list
}

// needsRollout reports whether a new revision needs new replicas. Applying an
// unchanged spec restarts all replicas.
func needsRollout(from, to dstack.RunSpec) bool {
	return len(job.CompareSpecs(from, to)) == 0 || job.NeedsRollout(from, to)
}

// keptGroups returns the groups whose replicas a new revision leaves alone. An unchanged
// spec restarts all.
func keptGroups(from, to dstack.RunSpec) []string {
	if len(job.CompareSpecs(from, to)) == 0 {
		return nil
	}
	return job.UnchangedGroups(from, to)
}

// combineStrategies returns the most disruptive strategy in a list of changes,
// or "" if the list is empty.
func combineStrategies(list []api.Change) (strategy string) {
	for _, c := range list {
		if c.Strategy != api.StrategyInPlace {
			return c.Strategy
		}
		strategy = c.Strategy
	}
	return strategy
}

// listChanges lists the changes that applying a plan would make. If no machine
// has capacity for a new replica beside an old one, old replicas are drained
// first.
func (p runPlan) listChanges() []api.Change {
	list := listChanges(p.existing.Run.Spec, p.spec)
	kept := keptGroups(p.existing.Run.Spec, p.spec)
	mustRecreate := slices.ContainsFunc(p.groups, func(g groupPlan) bool { return g.mustRecreate && !slices.Contains(kept, g.name) })
	for i := range list {
		if list[i].Strategy == api.StrategyRolling && mustRecreate {
			list[i].Strategy = api.StrategyRecreate
		}
	}
	return list
}
