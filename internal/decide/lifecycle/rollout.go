package lifecycle

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
)

// rollout is a run's replicas, sorted by what they are to it.
type rollout struct {
	current     []dstack.Replica // of the present shape, and to stay
	outdated    []dstack.Replica // of another one, and not told to end yet
	failed      []dstack.Replica // of the present shape: gave up
	terminating int              // of another shape, told to end and not gone yet
	takenNums   map[int]bool     // numbers of the present shape that are taken
	ready       int              // of fresh
	unplaced    int              // of fresh: never had a machine
	inFlight    map[dstack.ReplicaID]int
}

func sortReplicas(seen RunFacts) rollout {
	c := rollout{takenNums: map[int]bool{}, inFlight: seen.InFlight}
	for _, r := range seen.Replicas {
		present := r.TemplateRevision == seen.Run.TemplateRevision
		switch {
		case r.Status == dstack.ReplicaFailed && present:
			c.failed = append(c.failed, r)
		case r.Status.IsFinished():
		case !present && isLeaving(r):
			c.terminating++
		case !present:
			c.outdated = append(c.outdated, r)
		default:
			c.takenNums[r.Num] = true
			if isLeaving(r) {
				continue
			}
			c.current = append(c.current, r)
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

// hasTakenOver says that the present shape has proven itself. Where another one
// served before, it has to take over wholly first: until then it can fall
// back. It has, too, when all but it is gone and the rest of it finds no
// machine: that says nothing about the revision.
func (c rollout) hasTakenOver(seen RunFacts) bool {
	switch {
	case c.ready == 0:
		return false
	case seen.Run.StableRevision == 0, c.ready >= seen.DesiredReplicas:
		return true
	default:
		return len(c.outdated)+c.terminating == 0 && c.ready+c.unplaced == len(c.current)
	}
}

// hasServingOutdated says that there are older replicas with requests.
func (c rollout) hasServingOutdated() bool { return slices.ContainsFunc(c.outdated, isServing) }

// maxSurge is how many new replicas may start at once beside old ones: GPUs are
// scarce, and large services should not take for ever.
func maxSurge(wanted int) int { return max(1, wanted/4) }

// addMissing asks for the replicas that are missing. Where old ones serve, it asks
// for a few at a time, so that a bad revision shows before much of it is paid
// for. One that gave up is not asked for again before the shape has served.
func (c rollout) addMissing(seen RunFacts, step *RunStep) {
	missing := seen.DesiredReplicas - len(c.current)
	if seen.Run.ReadyAt.IsZero() && !step.Ready {
		missing -= len(c.failed)
	}
	if c.hasServingOutdated() {
		missing = min(missing, maxSurge(seen.DesiredReplicas)-(len(c.current)-c.ready))
	}
	for num := 0; missing > 0; num++ {
		if !c.takenNums[num] {
			step.Add = append(step.Add, num)
			missing--
		}
	}
}

// selectOutdated returns the old replicas that may go now: those without requests,
// as many of the others as new ones are ready, and one more for each new one
// that cannot start while they hold its place.
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

// removalRank ranks replicas by how much would be lost with them.
var removalRank = map[dstack.ReplicaStatus]int{
	dstack.ReplicaWaiting: 0, dstack.ReplicaRestarting: 1, dstack.ReplicaStarting: 2, dstack.ReplicaUnhealthy: 3, dstack.ReplicaReady: 4,
}

// pickRemovals returns the n replicas that would be missed least: those furthest
// from ready, then those with the fewest requests in flight, then the newest.
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
