package lifecycle

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
)

// rollout is the replicas of a run, or of one group, sorted by their part in an update.
type rollout struct {
	current     []dstack.Replica // of the present template, and not leaving
	steady      []dstack.Replica // of current: to stay on their machines
	displaced   []dstack.Replica // of current: to be placed on other machines, and may come back
	forced      []dstack.Replica // of current: to be placed on other machines, and cannot come back
	outdated    []dstack.Replica // of another template, and not leaving yet
	failed      []dstack.Replica // of the present template, and failed
	terminating int              // of another template, leaving
	ready       int              // of current
	steadyReady int              // of steady
	lost        int              // of displaced: they do not serve
	urgent      int              // of displaced: they serve, and are replaced at once
	unplaced    int              // of current: never had a machine
	inFlight    map[dstack.ReplicaID]int
}

func sortReplicas(seen RunFacts) rollout {
	c := rollout{inFlight: seen.InFlight}
	for _, r := range seen.Replicas {
		present := seen.isCurrent(r)
		switch {
		case r.Status == dstack.ReplicaFailed && present:
			c.failed = append(c.failed, r)
		case r.Status.IsFinished():
		case !present && isLeaving(r):
			c.terminating++
		case !present:
			c.outdated = append(c.outdated, r)
		case !isLeaving(r):
			c.current = append(c.current, r)
			c.addPlaced(r, seen.displaced)
			switch {
			case r.Status == dstack.ReplicaReady:
				c.ready++
			case r.Status == dstack.ReplicaWaiting && r.Attempt == "":
				c.unplaced++
			}
		}
	}
	return c
}

// addPlaced sorts a current replica by whether it stays on its machine.
func (c *rollout) addPlaced(r dstack.Replica, displaced map[dstack.ReplicaID]displacement) {
	switch d, ok := displaced[r.ID]; {
	case !ok:
		c.steady = append(c.steady, r)
		if r.Status == dstack.ReplicaReady {
			c.steadyReady++
		}
	case d.isForced:
		c.forced = append(c.forced, r)
	default:
		c.displaced = append(c.displaced, r)
		switch {
		case d.isLost:
			c.lost++
		case d.isUrgent:
			c.urgent++
		}
	}
}

// hasTakenOver reports whether the present template serves as desired. An update
// is complete when all desired replicas of all groups are ready, and can be rolled
// back until then. A group's update is also complete when all its outdated replicas
// are gone and only replicas without a machine are missing: that says nothing about
// the revision.
func (c rollout) hasTakenOver(seen RunFacts, groups []groupFacts) bool {
	if c.ready == 0 || seen.Run.StableRevision == 0 {
		return c.ready > 0
	}
	return !slices.ContainsFunc(groups, func(g groupFacts) bool { return !sortReplicas(g.RunFacts).isComplete(g.DesiredReplicas) })
}

func (c rollout) isComplete(desired int) bool {
	return c.ready >= desired || len(c.outdated)+c.terminating == 0 && c.ready > 0 && c.ready+c.unplaced+c.lost == len(c.current)-len(c.forced)
}

// hasServingOutdated reports whether outdated replicas may have requests.
func (c rollout) hasServingOutdated() bool { return slices.ContainsFunc(c.outdated, isServing) }

// maxSurge returns how many new replicas may start at once beside outdated ones:
// a quarter, because GPUs are scarce and large updates should not take too long.
func maxSurge(wanted int) int { return max(1, wanted/4) }

// addMissing adds the missing replicas of a group to a step. While outdated replicas
// serve, it adds only a few at a time, so that a bad revision fails before it costs
// much. A failed replica is not replaced before the template has served. Of displaced
// replicas that serve, too, only a few are replaced at a time; the others at once.
func (c rollout) addMissing(seen groupFacts, taken map[int]bool, step *RunStep) {
	missing := seen.DesiredReplicas - len(c.steady)
	if seen.Run.ReadyAt.IsZero() && !step.Ready {
		missing -= len(c.failed)
	}
	few := maxSurge(seen.DesiredReplicas) - (len(c.steady) - c.steadyReady)
	switch serving := len(c.displaced) - c.lost - c.urgent; {
	case c.hasServingOutdated():
		missing = min(missing, few)
	case serving > 0:
		missing = min(missing, max(few, missing-serving))
	}
	if leaving := append(c.forced, c.displaced...); missing > 0 && len(leaving) > 0 && step.AddReason == "" {
		step.AddReason = seen.displaced[leaving[0].ID].reason
	}
	for _, added := range step.Add {
		taken[added.Num] = true // by other groups
	}
	for num := 0; missing > 0; num++ {
		if !taken[num] {
			step.Add = append(step.Add, NewNum{num, seen.name})
			missing--
		}
	}
}

// selectOutdated returns the outdated replicas that may leave now: those without
// requests, as many of the others as new replicas are ready, and one more for
// each new replica that cannot be placed while they hold its place.
func (c rollout) selectOutdated(seen RunFacts) []dstack.Replica {
	var leave, stay []dstack.Replica
	for _, r := range c.outdated {
		if isServing(r) {
			stay = append(stay, r)
		} else {
			leave = append(leave, r)
		}
	}
	blocked := 0
	for _, r := range c.current {
		if r.Status == dstack.ReplicaWaiting && r.Blocked {
			blocked++
		}
	}
	surplus := len(stay) - max(seen.DesiredReplicas-c.ready, 0)
	surplus = max(surplus, blocked-c.terminating-len(leave))
	return append(leave, c.pickRemovals(stay, surplus)...)
}

// selectDisplaced returns the displaced replicas that may leave now: those that cannot come
// back, those whose machine is taken back soon if others serve, and as many of the others as the steady replicas that are ready replace.
func (c rollout) selectDisplaced(desired int, displaced map[dstack.ReplicaID]displacement) []dstack.Replica {
	leave, stay := slices.Clone(c.forced), slices.Clone(c.displaced)
	if c.steadyReady > 0 {
		stay = slices.DeleteFunc(stay, func(r dstack.Replica) bool { return displaced[r.ID].isUrgent })
		for _, r := range c.displaced {
			if displaced[r.ID].isUrgent {
				leave = append(leave, r)
			}
		}
	}
	return append(leave, c.pickRemovals(stay, len(stay)-max(desired-c.steadyReady, 0))...)
}

// removalRank ranks replicas by how much is lost with them, the least first.
var removalRank = map[dstack.ReplicaStatus]int{
	dstack.ReplicaWaiting: 0, dstack.ReplicaRestarting: 1, dstack.ReplicaStarting: 2, dstack.ReplicaUnhealthy: 3, dstack.ReplicaReady: 4,
}

// pickRemovals returns the n replicas that are removed first: those furthest from
// ready, then those with the fewest requests in flight, then those with the
// highest numbers.
func (c rollout) pickRemovals(rs []dstack.Replica, n int) []dstack.Replica {
	rs = slices.Clone(rs)
	slices.SortStableFunc(rs, func(a, b dstack.Replica) int {
		return cmp.Or(
			cmp.Compare(removalRank[a.Status], removalRank[b.Status]),
			cmp.Compare(c.inFlight[a.ID], c.inFlight[b.ID]),
			cmp.Compare(b.Num, a.Num),
		)
	})
	return rs[:min(max(n, 0), len(rs))]
}
