package lifecycle

import (
	"cmp"
	"slices"

	"dstack/internal/dstack"
)

// crew is a run's replicas, sorted by what they are to it.
type crew struct {
	fresh    []dstack.Replica // of the present shape, and to stay
	old      []dstack.Replica // of another one, and not told to end yet
	failed   []dstack.Replica // of the present shape: gave up
	going    int              // of another shape, told to end and not gone yet
	held     map[int]bool     // numbers of the present shape that are taken
	ready    int              // of fresh
	homeless int              // of fresh: never had a machine
	inFlight map[dstack.ReplicaID]int
}

func crewOf(seen RunFacts) crew {
	c := crew{held: map[int]bool{}, inFlight: seen.InFlight}
	for _, r := range seen.Replicas {
		present := r.TemplateRevision == seen.Run.TemplateRevision
		switch {
		case r.Status == dstack.ReplicaFailed && present:
			c.failed = append(c.failed, r)
		case r.Status.IsFinished():
		case !present && leaving(r):
			c.going++
		case !present:
			c.old = append(c.old, r)
		default:
			c.held[r.Num] = true
			if leaving(r) {
				continue
			}
			c.fresh = append(c.fresh, r)
			switch {
			case r.Status == dstack.ReplicaReady:
				c.ready++
			case r.Status == dstack.ReplicaWaiting && r.Attempt == "":
				c.homeless++
			}
		}
	}
	return c
}

// serves says that the present shape has proven itself. Where another one
// served before, it has to take over wholly first: until then it can fall
// back. It has, too, when all but it is gone and the rest of it finds no
// machine: that says nothing about the revision.
func (c crew) serves(seen RunFacts) bool {
	switch {
	case c.ready == 0:
		return false
	case seen.Run.StableRevision == 0, c.ready >= seen.DesiredReplicas:
		return true
	default:
		return len(c.old)+c.going == 0 && c.ready+c.homeless == len(c.fresh)
	}
}

// protected says that there are older replicas with requests.
func (c crew) protected() bool { return slices.ContainsFunc(c.old, serving) }

// surge is how many new replicas may start at once beside old ones: GPUs are
// scarce, and large services should not take for ever.
func surge(wanted int) int { return max(1, wanted/4) }

// hire asks for the replicas that are missing. Where old ones serve, it asks
// for a few at a time, so that a bad revision shows before much of it is paid
// for. One that gave up is not asked for again before the shape has served.
func (c crew) hire(seen RunFacts, step *RunStep) {
	missing := seen.DesiredReplicas - len(c.fresh)
	if seen.Run.ReadyAt.IsZero() && !step.Ready {
		missing -= len(c.failed)
	}
	if c.protected() {
		missing = min(missing, surge(seen.DesiredReplicas)-(len(c.fresh)-c.ready))
	}
	for num := 0; missing > 0; num++ {
		if !c.held[num] {
			step.Add = append(step.Add, num)
			missing--
		}
	}
}

// leaving returns the old replicas that may go now: those without requests,
// as many of the others as new ones are ready, and one more for each new one
// that cannot start while they hold its place.
func (c crew) leaving(seen RunFacts) []dstack.Replica {
	var go1, stay []dstack.Replica
	for _, r := range c.old {
		if serving(r) {
			stay = append(stay, r)
		} else {
			go1 = append(go1, r)
		}
	}
	blocked := 0
	for _, r := range c.fresh {
		if r.Status == dstack.ReplicaWaiting && r.Blocked {
			blocked++
		}
	}
	surplus := len(stay) - max(seen.DesiredReplicas-c.ready, 0)
	surplus = max(surplus, blocked-c.going-len(go1))
	return append(go1, c.least(stay, surplus)...)
}

// usefulness ranks replicas by how much would be lost with them.
var usefulness = map[dstack.ReplicaStatus]int{
	dstack.ReplicaWaiting: 0, dstack.ReplicaRestarting: 1, dstack.ReplicaStarting: 2, dstack.ReplicaUnhealthy: 3, dstack.ReplicaReady: 4,
}

// least returns the n replicas that would be missed least: those furthest
// from ready, then those with the fewest requests in flight, then the newest.
func (c crew) least(rs []dstack.Replica, n int) []dstack.Replica {
	rs = slices.Clone(rs)
	slices.SortStableFunc(rs, func(a, b dstack.Replica) int {
		return cmp.Or(
			cmp.Compare(usefulness[a.Status], usefulness[b.Status]),
			cmp.Compare(c.inFlight[a.ID], c.inFlight[b.ID]),
			cmp.Compare(b.Num, a.Num),
		)
	})
	return rs[:min(max(n, 0), len(rs))]
}
