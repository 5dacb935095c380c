package server

import (
	"dstack/internal/api"
	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// changes is what differs for the service, wherever it was written, and how
// it comes about.
func changes(from, to dstack.RunSpec) []api.Change {
	list := []api.Change{}
	for _, change := range spec.Diff(whole(from), whole(to)) {
		list = append(list, api.Change{Path: change.Path, From: change.From, To: change.To, How: how(change.Path)})
	}
	if code(from) != code(to) && code(to) != "" {
		list = append(list, api.Change{Path: "code", From: brief(code(from)), To: brief(code(to)), How: how("code")})
	}
	return list
}

// whole is a configuration with what its profile adds.
func whole(rs dstack.RunSpec) spec.Service {
	conf := rs.Configuration
	conf.Params = spec.Merge(rs.Configuration, rs.Profile)
	conf.Name = "" // the same run, by whatever way it was named
	return conf
}

func how(path string) string {
	if job.Change(path) == job.InPlace {
		return api.HowInPlace
	}
	return api.HowRolling
}

// rolls says that new containers are needed. Applied without a change, a run
// is started anew.
func rolls(from, to dstack.RunSpec) bool {
	list := changes(from, to)
	return len(list) == 0 || most(list) != api.HowInPlace
}

// most is how changes come about together.
func most(list []api.Change) (all string) {
	for _, c := range list {
		if c.How != api.HowInPlace {
			return c.How
		}
		all = c.How
	}
	return all
}

// changes is what a plan would change. Where there is no room for a new
// replica beside an old one, the old one has to leave first.
func (p plan) changes() []api.Change {
	list := changes(p.existing.Run.Spec, p.spec)
	for i := range list {
		if list[i].How == api.HowRolling && p.crowded {
			list[i].How = api.HowRecreate
		}
	}
	return list
}
