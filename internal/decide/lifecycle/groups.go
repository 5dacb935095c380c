package lifecycle

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// groupName returns the name of a group; empty means the only group.
func groupName(name string) string { return cmp.Or(name, spec.DefaultGroup) }

// groupFacts is the facts about one group of a run. Run has the specification and the desired
// number of the group.
type groupFacts struct {
	RunFacts
	name string
	// isRemoved says that these are the replicas of groups that the configuration no longer
	// has. The replicas of the present template are among them, too, and DesiredReplicas is
	// that of all groups: what takes the place of a removed group is any other one.
	isRemoved bool
}

// splitByGroup returns the facts about each group of the configuration, in its order, and last
// those about removed groups, if there are any.
func (seen RunFacts) splitByGroup() []groupFacts {
	if len(seen.Run.Spec.Configuration.Groups) == 0 && !slices.ContainsFunc(seen.Replicas, seen.isOfRemovedGroup) {
		return []groupFacts{{RunFacts: seen, name: spec.DefaultGroup}}
	}
	var parts []groupFacts
	for _, name := range seen.Run.Spec.Configuration.GroupNames() {
		part := groupFacts{RunFacts: seen, name: name}
		part.Replicas = filterReplicas(seen.Replicas, func(r dstack.Replica) bool { return groupName(r.Group) == name })
		part.Groups = nil
		if at := slices.IndexFunc(seen.Groups, func(g GroupScale) bool { return g.Group == name }); at >= 0 {
			part.DesiredReplicas, part.ScaleReason = seen.Groups[at].DesiredReplicas, seen.Groups[at].Reason
		} else if run, ok := seen.Run.ForGroup(name); ok && seen.Run.Groups != nil {
			part.DesiredReplicas, part.ScaleReason = run.DesiredReplicas, ""
		}
		parts = append(parts, part)
	}
	if slices.ContainsFunc(seen.Replicas, seen.isOfRemovedGroup) {
		removed := groupFacts{RunFacts: seen, isRemoved: true}
		removed.Replicas = filterReplicas(seen.Replicas, func(r dstack.Replica) bool {
			return seen.isOfRemovedGroup(r) || seen.isCurrent(r)
		})
		parts = append(parts, removed)
	}
	return parts
}

func filterReplicas(all []dstack.Replica, keep func(dstack.Replica) bool) []dstack.Replica {
	var some []dstack.Replica
	for _, r := range all {
		if keep(r) {
			some = append(some, r)
		}
	}
	return some
}

func (seen RunFacts) isOfRemovedGroup(r dstack.Replica) bool {
	return !slices.Contains(seen.Run.Spec.Configuration.GroupNames(), groupName(r.Group))
}

// isCurrent reports whether a replica is of the run's present template.
func (seen RunFacts) isCurrent(r dstack.Replica) bool {
	return r.TemplateRevision == seen.Run.TemplateRevision && !seen.isOfRemovedGroup(r)
}

// desiredByGroup returns the desired number of each group; nil: the service has no groups.
func (seen RunFacts) desiredByGroup() map[string]int {
	if len(seen.Groups) == 0 {
		return nil
	}
	desired := make(map[string]int, len(seen.Groups))
	for _, g := range seen.Groups {
		desired[g.Group] = g.DesiredReplicas
	}
	return desired
}

// takenNums returns the numbers that a new replica of a group cannot have: those of replicas of
// the present template, and those of replicas of other groups. The number of an outdated
// replica of the same group goes to its successor. So two groups never have replicas with the
// same number, also after a rollback.
func (seen RunFacts) takenNums(group string) map[int]bool {
	taken := map[int]bool{}
	for _, r := range seen.Replicas {
		if !r.Status.IsFinished() && (seen.isCurrent(r) || groupName(r.Group) != group) {
			taken[r.Num] = true
		}
	}
	return taken
}
