package reconcile

import (
	"context"
	"fmt"

	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// rooms is where replicas could go, read for the first that asks. Those placed
// since then hold what they were given: what is decided together does not
// collide.
type rooms struct {
	r        *Reconciler
	projects map[dstack.ProjectID]*roomOf
	given    []given
}

// given is a place on a machine that is shared.
type given struct {
	project dstack.ProjectID
	holder  string
	on      dstack.InstanceID
	claim   dstack.Claim
}

// roomOf is what the machines of one project offer, and what is held of them.
type roomOf struct {
	offers []dstack.Offer
	used   map[dstack.InstanceID]dstack.Allocation
}

func (r *Reconciler) newRooms() *rooms {
	return &rooms{r: r, projects: map[dstack.ProjectID]*roomOf{}}
}

// look adds where a waiting replica could go.
func (m *rooms) look(ctx context.Context, seen *lifecycle.ReplicaFacts) error {
	room, err := m.of(ctx, seen.Run)
	if err != nil {
		return err
	}
	need := job.BuildRequirements(seen.Run.Spec)
	seen.Placements, seen.Rejections = placement.RankOffers(need, room.offers, room.used)
	if len(seen.Placements) > 0 {
		return nil
	}
	var older []dstack.Replica
	for _, other := range seen.Siblings {
		if other.TemplateRevision != seen.Replica.TemplateRevision {
			older = append(older, other)
		}
	}
	if len(older) > 0 {
		places, _ := placement.RankOffers(need, room.offers, placement.ReleaseAllocations(room.used, older))
		seen.Blocked = len(places) > 0
	}
	return nil
}

func (m *rooms) of(ctx context.Context, run dstack.Run) (*roomOf, error) {
	if room, ok := m.projects[run.ProjectID]; ok {
		return room, nil
	}
	used, err := m.r.Store.Allocations(ctx, run.ProjectID)
	if err != nil {
		return nil, err
	}
	room := &roomOf{used: used, offers: m.r.offers(ctx, run.Project)}
	for _, g := range m.given {
		room.take(run.ProjectID, g)
	}
	m.projects[run.ProjectID] = room
	return room, nil
}

// take notes what a replica has been given, for those that look after it.
func (m *rooms) take(seen lifecycle.ReplicaFacts, place dstack.Placement) {
	if place.Offer.OwnedInstance == "" {
		return // rented for it alone
	}
	g := given{project: seen.Run.ProjectID, on: place.Offer.OwnedInstance, claim: place.Claim,
		holder: fmt.Sprintf("%s replica %d", seen.Run.Name, seen.Replica.Num)}
	m.given = append(m.given, g)
	for project, room := range m.projects {
		room.take(project, g)
	}
}

// take adds to what is held what one was given. Runs of other projects are not
// named.
func (room *roomOf) take(by dstack.ProjectID, g given) {
	if g.project != by {
		g.holder = "a run of another project"
	}
	u := room.used[g.on]
	u.CPUs += g.claim.CPUs
	u.MemoryMiB += g.claim.MemoryMiB
	u.DiskMiB += g.claim.DiskMiB
	if u.GPUs == nil {
		u.GPUs, u.Ports = map[string]string{}, map[int]string{}
	}
	for _, gpu := range g.claim.GPUs {
		u.GPUs[gpu.ID] = g.holder
	}
	for _, port := range g.claim.Ports {
		u.Ports[port] = g.holder
	}
	room.used[g.on] = u
}

// offers asks every backend of a project. One that does not answer offers
// nothing this time.
func (r *Reconciler) offers(ctx context.Context, project string) (all []dstack.Offer) {
	all, silent := r.Backends.Offers(ctx, project, dstack.Requirements{})
	for _, b := range silent {
		r.Log.Warn("a backend did not answer", "backend", b.Key, "err", b.Err)
	}
	return all
}
