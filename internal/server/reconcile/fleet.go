package reconcile

import (
	"context"
	"time"

	"dstack/internal/decide/fleet"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// fleetBatch is how many cloud fleets are claimed at once.
const fleetBatch = 64

// stepFleets is one pass over some cloud fleets.
func (r *Reconciler) stepFleets(ctx context.Context, leases []store.Lease) bool {
	capacity := r.newCapacity()
	changed := false
	for _, l := range leases { // one after the other: they share what the backends offer
		isStepped := r.forEach(ctx, []store.Lease{l}, 1, func(l store.Lease) (bool, error) { return r.stepFleet(ctx, l, capacity) })
		changed = changed || isStepped
	}
	return changed
}

// stepFleet decides and saves the next step of a cloud fleet. It calls no backend to change anything: the rows of the machines
// that it rents are the intent, and the instance pass creates and deletes the machines.
func (r *Reconciler) stepFleet(ctx context.Context, l store.Lease, c *capacity) (changed bool, err error) {
	f, version, err := r.Store.CloudFleet(ctx, dstack.FleetID(l.ID))
	if err != nil {
		return false, err
	}
	seen := fleet.RentedFacts{Fleet: f}
	if fleet.CountMissing(f, time.Now()) > 0 {
		if err := c.findFleetMachines(ctx, &seen); err != nil {
			return false, err
		}
	}
	now := time.Now()
	step := fleet.DecideRented(seen, now)
	if err := r.Store.SaveFleetStep(ctx, l, f, version, step, now); err != nil {
		return false, err
	}
	r.logFleetStep(f, step)
	if len(step.Rent) > 0 || len(step.Leave) > 0 {
		r.wakes[store.Instances].Signal()
		r.wakes[store.Replicas].Signal()
		return true, nil
	}
	return step.IsGone || step.Rounds.Reason != f.Rounds.Reason, nil
}

// findFleetMachines adds to the facts of a fleet which machines it could rent.
func (c *capacity) findFleetMachines(ctx context.Context, seen *fleet.RentedFacts) error {
	f := seen.Fleet
	need := fleet.BuildRequirements(f)
	need.IsGlobalAdmin = true
	key := offersKey{run: dstack.RunID("fleet/" + f.ID)}
	all := c.readOffers(ctx, key, f.ProjectName, need)
	var rented []dstack.Offer
	for _, o := range all {
		if o.OwnedInstance == "" && !o.AnyNode {
			rented = append(rented, o)
		}
	}
	offers, excluded, err := c.splitOffers(ctx, f.Project, "", rented)
	if err != nil {
		return err
	}
	found := placement.FindPlacements(need, offers, nil, nil)
	seen.Placements = found.Placements
	for _, r := range excluded {
		if r.Constraint == dstack.ConstraintBudget {
			seen.Refusal = r.Reason
		}
	}
	seen.Rejections = append(excluded, found.Rejections...)
	seen.Rejections = append(seen.Rejections, c.listUnanswered(f.ProjectName)...)
	return nil
}

func (r *Reconciler) logFleetStep(f dstack.Fleet, step fleet.RentedStep) {
	for _, o := range step.Rent {
		r.Log.Info("a fleet rents a machine", "fleet", f.Name, "project", f.ProjectName, "backend", o.Key, "region", o.Region, "zone", o.Zone, "type", o.Type)
	}
	for _, d := range step.Leave {
		r.Log.Info("a machine leaves its fleet", "fleet", f.Name, "project", f.ProjectName, "instance", d.Instance, "why", d.Reason)
	}
	if why := step.Rounds.Reason; why != f.Rounds.Reason && why != "" {
		r.Log.Warn("a fleet has too few machines", "fleet", f.Name, "project", f.ProjectName, "why", why)
	}
	if step.IsGone {
		r.logChange("fleet", f.Name, "deleting", "gone", "")
	}
}

// readFleetRoom returns the machines that could be rented for the fleets that a replica's run names, and which of these have
// all of theirs.
func (c *capacity) readFleetRoom(
	ctx context.Context, seen *lifecycle.ReplicaFacts, need dstack.Requirements,
) (all []dstack.Offer, full []dstack.Rejection, err error) {
	if len(need.Fleets) == 0 || need.OwnedOnly {
		return nil, nil, nil
	}
	fleets, err := c.r.Store.ListFleets(ctx, []dstack.ProjectID{seen.Run.ProjectID})
	if err != nil {
		return nil, nil, err
	}
	for _, f := range fleet.ListWithRoom(need, fleets) {
		key := offersKey{seen.Run.ID, seen.Replica.Revision, seen.Replica.Group + "/" + string(f.ID)}
		offers := c.readOffers(ctx, key, seen.Run.Project, fleet.NarrowRequirements(need, f))
		own := fleet.BuildRequirements(f)
		own.IsGlobalAdmin = true
		all = append(all, fleet.ChooseForFleet(f, offers, placement.Suits(own))...)
	}
	return all, fleet.ListFull(need, fleets), nil
}
