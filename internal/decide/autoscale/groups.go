package autoscale

import (
	"cmp"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// GroupDecision is the decision for one group of a run.
type GroupDecision struct {
	Group string `json:"group"`
	Decision
}

// DecideGroups decides for each group of a run, in the order of the configuration. A run without
// groups has one.
//
// The groups share the load: requests go to the replicas of all. So a group gets what the other
// groups do not take. Each replica of another group takes as much as that group's target, or,
// where that group has no target for the same metric, as much as a replica of the group itself.
// Groups are filled in their order: for a group, the earlier ones have as many replicas as the
// load requires, without those that get no machine, and the later ones as few as they may. The
// sum is then what the load requires, and the result depends on the load, not on what the groups
// have at present.
func DecideGroups(run dstack.Run, replicas []dstack.Replica, load dstack.Load, now time.Time) []GroupDecision {
	names := run.Spec.Configuration.GroupNames()
	facts, unplaced := make([]Facts, 0, len(names)), []int{}
	for _, name := range names {
		group, _ := run.ForGroup(name)
		var own []dstack.Replica
		for _, r := range replicas {
			if cmp.Or(r.Group, spec.DefaultGroup) == name {
				own = append(own, r)
			}
		}
		f := BuildFacts(group, replicas, load) // with the starting replicas of all groups
		f.ReadyAt = BuildFacts(group, own, load).ReadyAt
		facts = append(facts, f)
		unplaced = append(unplaced, countUnplaced(own, now))
	}
	counts := make([]int, len(facts)) // what other groups expect of each
	for i, f := range facts {
		counts[i] = max(f.Replicas.Min-unplaced[i], 0)
	}
	all := make([]GroupDecision, len(facts))
	for i, f := range facts {
		for j, other := range facts {
			if i != j && f.Scaling != nil {
				f.Others += counts[j]
				f.OthersTake += float64(counts[j]) * other.targetFor(f)
			}
		}
		all[i] = GroupDecision{names[i], Decide(f, now)}
		counts[i] = max(all[i].Target-unplaced[i], 0)
	}
	return all
}

// placedWithin is how long a replica may wait for a machine before other groups replace it.
const placedWithin = time.Minute

// countUnplaced returns how many replicas have waited for a machine for long.
func countUnplaced(replicas []dstack.Replica, now time.Time) (n int) {
	for _, r := range replicas {
		if r.Status == dstack.ReplicaWaiting && now.Sub(r.Since) >= placedWithin {
			n++
		}
	}
	return n
}

// targetFor returns how much of another group's metric a replica takes.
func (f Facts) targetFor(other Facts) float64 {
	if f.Scaling != nil && f.Scaling.Metric == other.Scaling.Metric {
		return f.Scaling.Target
	}
	return other.Scaling.Target
}
