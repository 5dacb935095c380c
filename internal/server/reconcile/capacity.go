package reconcile

import (
	"context"
	"slices"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// capacity is where the replicas of one pass can be placed. Offers and
// allocations are read when the first replica needs them. The placements of the
// pass are added to the allocations, so that they do not collide.
type capacity struct {
	r           *Reconciler
	offers      map[offersKey][]dstack.Offer
	unanswered  []backend.UnansweredBackend // in this pass
	allocations map[dstack.ProjectID]allocations
	volumes     map[dstack.ProjectID][]dstack.Volume
	away        map[dstack.InstanceID]dstack.Reason // machines that are away, and why; nil: not read yet
	idle        map[dstack.ProjectID][]dstack.Offer // rented machines that run nothing
	grants      []placement.Grant
}

// allocations is what is allocated of each instance, as one project sees it.
type allocations map[dstack.InstanceID]dstack.Allocation

// offersKey identifies what was asked of the backends: a group of a revision has one
// set of requirements.
type offersKey struct {
	run      dstack.RunID
	revision int
	group    string
}

func (r *Reconciler) newCapacity() *capacity {
	return &capacity{
		r: r, offers: map[offersKey][]dstack.Offer{},
		allocations: map[dstack.ProjectID]allocations{}, volumes: map[dstack.ProjectID][]dstack.Volume{},
		idle: map[dstack.ProjectID][]dstack.Offer{},
	}
}

// maxNamedExclusions is how many offers that failed lately a waiting replica names.
const maxNamedExclusions = 5

// findPlacements adds to the facts of a waiting replica where it can be placed.
func (c *capacity) findPlacements(ctx context.Context, seen *lifecycle.ReplicaFacts) error {
	used, err := c.readAllocations(ctx, seen.Run.ProjectID)
	if err != nil {
		return err
	}
	need := job.BuildRequirements(seen.Run.Spec)
	need.Project, need.IsGlobalAdmin = seen.Run.ProjectID, seen.Run.IsGlobalAdmin
	if need.Pin, err = c.readPin(ctx, seen.Run); err != nil {
		return err
	}
	all := c.readOffers(ctx, offersKey{seen.Run.ID, seen.Replica.Revision, seen.Replica.Group}, seen.Run.Project, need)
	idle, err := c.readIdle(ctx, seen.Run.ProjectID)
	if err != nil {
		return err
	}
	room, full, err := c.readFleetRoom(ctx, seen, need)
	if err != nil {
		return err
	}
	offers, excluded, err := c.splitOffers(ctx, seen.Run.ProjectID, seen.Run.ID, slices.Concat(idle, all, room))
	if err != nil {
		return err
	}
	excluded = append(full, excluded...)
	excluded = append(excluded, c.listUnanswered(seen.Run.Project)...)
	excluded = append(excluded, c.r.Backends.ListUnusable(ctx, dstack.Project{ID: seen.Run.ProjectID, Name: seen.Run.Project})...)
	need.Run, need.Template = seen.Run.ID, seen.Replica.TemplateRevision
	found := placement.FindPlacements(need, offers, used, seen.Siblings)
	seen.Placements, seen.Blocked = found.Placements, found.IsBlocked
	seen.Rejections = append(found.Rejections, excluded[:min(len(excluded), maxNamedExclusions)]...)
	seen.Rejected = found.Rejected + len(excluded)
	return nil
}

// splitOffers returns the offers that LimitOffers allows and whose machines are not away,
// and why the others are left out.
func (c *capacity) splitOffers(
	ctx context.Context, project dstack.ProjectID, run dstack.RunID, offers []dstack.Offer,
) ([]dstack.Offer, []dstack.Rejection, error) {
	if err := c.readAway(ctx); err != nil {
		return nil, nil, err
	}
	offers, left := placement.LeaveOut(offers, c.away)
	offers, limited, err := c.r.LimitOffers(ctx, project, run, offers)
	return offers, append(left, limited...), err
}

// LimitOffers returns the offers that did not fail lately and that a project may rent, and why the others are left out.
// run is the run that they are for; empty: none yet.
func (r *Reconciler) LimitOffers(
	ctx context.Context, project dstack.ProjectID, run dstack.RunID, offers []dstack.Offer,
) ([]dstack.Offer, []dstack.Rejection, error) {
	offers, failed := r.splitFailed(run, offers)
	offers, refused, err := r.refuseNew(ctx, project, offers)
	return offers, append(failed, refused...), err
}

func (r *Reconciler) splitFailed(run dstack.RunID, offers []dstack.Offer) ([]dstack.Offer, []dstack.Rejection) {
	r.exclusionsMu.Lock()
	defer r.exclusionsMu.Unlock()
	return r.exclusions.SplitForRun(run, offers, time.Now())
}

// readAway reads which machines are away, once in a pass.
func (c *capacity) readAway(ctx context.Context) (err error) {
	if c.away == nil {
		c.away, err = c.r.Store.AwayInstances(ctx)
	}
	return err
}

// readIdle returns the offers of a project's rented machines that run nothing. Those that replicas of this pass were given
// are not idle any more.
func (c *capacity) readIdle(ctx context.Context, project dstack.ProjectID) ([]dstack.Offer, error) {
	offers, isKnown := c.idle[project]
	if !isKnown {
		instances, err := c.r.Store.IdleInstances(ctx, project)
		if err != nil {
			return nil, err
		}
		for _, i := range instances {
			offers = append(offers, placement.NewIdleOffer(i))
		}
		c.idle[project] = offers
	}
	return slices.DeleteFunc(slices.Clone(offers), func(o dstack.Offer) bool {
		return slices.ContainsFunc(c.grants, func(g placement.Grant) bool { return g.Instance == o.OwnedInstance })
	}), nil
}

// refuseNew leaves out the machines to rent if the project may not rent any now, and says why.
func (r *Reconciler) refuseNew(ctx context.Context, project dstack.ProjectID, offers []dstack.Offer) ([]dstack.Offer, []dstack.Rejection, error) {
	if r.WhyNoRent == nil || !slices.ContainsFunc(offers, func(o dstack.Offer) bool { return o.OwnedInstance == "" }) {
		return offers, nil, nil
	}
	refuse, err := r.WhyNoRent(ctx, project)
	if err != nil || refuse == nil {
		return offers, nil, err
	}
	allowed, rejected := placement.RefuseNew(offers, refuse)
	return allowed, rejected, nil
}

// readAllocations returns what is allocated of each instance, as a project sees it.
func (c *capacity) readAllocations(ctx context.Context, project dstack.ProjectID) (allocations, error) {
	if used, ok := c.allocations[project]; ok {
		return used, nil
	}
	used, err := c.r.Store.Allocations(ctx, project)
	if err != nil {
		return nil, err
	}
	for _, g := range c.grants {
		placement.AddGrant(used, project, g)
	}
	c.allocations[project] = used
	return used, nil
}

// maxSearchedOffers is how many offers of each cloud are looked at for a replica. Some of them may be excluded.
const maxSearchedOffers = 300

// readOffers asks every backend of a project. A backend that does not answer
// offers nothing, and is not asked again in this pass.
func (c *capacity) readOffers(
	ctx context.Context, key offersKey, project string, need dstack.Requirements,
) []dstack.Offer {
	if offers, ok := c.offers[key]; ok {
		return offers
	}
	skip := make([]string, 0, len(c.unanswered))
	for _, b := range c.unanswered {
		skip = append(skip, b.Key)
	}
	found := c.r.Backends.Offers(ctx, project, need, maxSearchedOffers, skip...)
	for _, b := range found.Unanswered {
		if skipped, ok := c.r.failures.Admit("offers of "+b.Key, b.Err.Error(), time.Now()); ok {
			c.r.Log.Warn("a backend did not answer", "backend", b.Key, "err", b.Err, "not_logged", skipped)
		}
	}
	c.unanswered = append(c.unanswered, found.Unanswered...)
	c.offers[key] = found.Offers
	return found.Offers
}

// listUnanswered returns why the backends of a project that do not answer offer nothing.
func (c *capacity) listUnanswered(project string) (rejections []dstack.Rejection) {
	for _, b := range c.unanswered {
		if slices.Contains(c.r.Backends.Of(project), b.Key) {
			reason := "does not answer: " + b.Err.Error()
			rejections = append(rejections, dstack.Rejection{Offer: dstack.Offer{Backend: b.Key, Key: b.Key, Type: b.Key},
				Constraint: dstack.ConstraintUsable, Has: reason, Reason: reason})
		}
	}
	return rejections
}

// addPlacement allocates what a replica was given, for the later replicas of the
// pass.
func (c *capacity) addPlacement(seen lifecycle.ReplicaFacts, p dstack.Placement) {
	if p.Offer.OwnedInstance == "" {
		return // a rented machine is for this replica alone
	}
	g := placement.Grant{
		Project: seen.Run.ProjectID, Run: seen.Run.ID, RunName: seen.Run.Name, Template: seen.Replica.TemplateRevision, Num: seen.Replica.Num,
		Instance: p.Offer.OwnedInstance, Claim: p.Claim,
	}
	c.grants = append(c.grants, g)
	for project, used := range c.allocations {
		placement.AddGrant(used, project, g)
	}
}
