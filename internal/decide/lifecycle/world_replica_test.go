package lifecycle_test

import (
	"slices"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// runOf returns the run with the configuration of a replica's revision.
func (w *world) runOf(r dstack.Replica) dstack.Run {
	of := w.tenants[r.Run]
	run := of.run
	if r.TemplateRevision != run.TemplateRevision {
		run.Spec = of.revisions[r.Revision-1].Spec
	}
	run, ok := run.ForGroup(r.Group)
	if !ok {
		w.t.Fatalf("replica %s is of group %q, which revision %d does not have", r.ID, r.Group, r.Revision)
	}
	return run
}

func (w *world) replicaFacts(r dstack.Replica) lifecycle.ReplicaFacts {
	seen := lifecycle.ReplicaFacts{
		Replica: r, Run: w.runOf(r), Load: w.web.load(w),
		Limits: lifecycle.Limits{StartTimeout: time.Minute, PlaceTimeout: time.Minute},
	}
	waits := r.Status == dstack.ReplicaWaiting
	for _, other := range w.mine() {
		if other.ID != r.ID && !other.Status.IsFinished() && (!waits || other.TemplateRevision != r.TemplateRevision) {
			seen.Siblings = append(seen.Siblings, *other)
		}
	}
	if i := w.instances[r.Instance]; i != nil {
		seen.Instance = new(*i)
	}
	if rep, ok := w.reports[r.Attempt]; ok {
		seen.Report = &rep
	}
	if waits {
		w.findPlaces(&seen)
	}
	return seen
}

// findPlaces adds the placements of a waiting replica, by the present allocations
// or those a tick ago.
func (w *world) findPlaces(seen *lifecycle.ReplicaFacts) {
	used, offers := w.allocations(), w.offers()
	if w.stale != nil && w.chance(4, "stale allocations") {
		used = w.stale
	}
	need := job.BuildRequirements(seen.Run.Spec)
	need.IsGlobalAdmin = true // the author of every run is one
	offers, left := placement.LeaveOut(offers, w.away())
	offers, failed := w.exclusions.SplitForRun(seen.Run.ID, offers, w.now)
	left = append(left, failed...)
	need.Run, need.Template = seen.Run.ID, seen.Replica.TemplateRevision
	found := placement.FindPlacements(need, offers, used, seen.Siblings)
	seen.Placements, seen.Blocked = found.Placements, found.IsBlocked
	seen.Rejections, seen.Rejected = append(found.Rejections, left...), found.Rejected+len(left)
}

// away returns the instances that are away, with the reasons.
func (w *world) away() map[dstack.InstanceID]dstack.Reason {
	all := map[dstack.InstanceID]dstack.Reason{}
	for id, i := range w.instances {
		if i.Status == dstack.InstanceAway {
			all[id] = i.Reason
		}
	}
	return all
}

// takeIdle reserves an idle machine, as the store does.
func (w *world) takeIdle(id dstack.InstanceID) bool {
	i := w.instances[id]
	if i.Status != dstack.InstanceUp || i.IsDraining {
		return false
	}
	i.Version++
	return true
}

// canClaim reports whether the store would accept a placement: nothing exclusive
// is held by another replica, and all claims together do not exceed the instance.
func (w *world) canClaim(id dstack.InstanceID, p dstack.Placement) bool {
	total, keys := p.Claim, placement.ExclusiveKeys(p.Claim)
	for _, r := range w.replicas {
		if r.Instance != id || r.Status.IsFinished() {
			continue
		}
		total = placement.Sum(total, r.Claim, 1)
		for _, held := range placement.ExclusiveKeys(r.Claim) {
			if slices.Contains(keys, held) {
				return false
			}
		}
	}
	return len(placement.Exceeded(p.Offer, total, p.Claim)) == 0
}

func (w *world) stepReplica(r *dstack.Replica) {
	if r.Status.IsFinished() || !w.isReplicaDue(r.ID) {
		return
	}
	seen := w.replicaFacts(*r)
	step, err := lifecycle.DecideReplica(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.crashes("saving a replica") {
		return
	}
	if step.LeftOut != nil && w.account != nil {
		w.exclusions.ExcludeForRun(seen.Run.ID, *step.LeftOut, string(step.Reason), w.now)
	}
	next := step.Apply(*r, lifecycle.NewIDs{Instance: dstack.InstanceID(w.newID("i")), Attempt: dstack.AttemptID(w.newID("a"))}, w.now)
	if p := step.Placement; p != nil {
		if !w.canClaim(next.Instance, *p) {
			w.conflicts++
			return
		}
		if p.Offer.IsIdle && !w.takeIdle(next.Instance) {
			w.conflicts++
			return
		}
		placed := lifecycle.NewInstance(next.Instance, p.Offer, seen.Run, w.now)
		if i := w.instances[next.Instance]; i == nil {
			w.instances[next.Instance] = &placed
		} else if !p.Offer.IsIdle {
			i.Offer, i.IsDraining = placed.Offer, placed.IsDraining
		}
	}
	if step.NewAttempt {
		w.attempts[next.Attempt] = r.ID
	}
	w.touched = w.touched || step.To != r.Status || step.NewAttempt || step.Blocked != r.Blocked
	w.replicaDue[r.ID] = step.Due
	hadInstance := r.Instance != ""
	w.setReplica(next)
	if next.Status.IsFinished() && hadInstance { // what it held is free
		w.markReplicasDue(func(other dstack.Replica) bool { return other.Status == dstack.ReplicaWaiting })
	}
}

// setReplica writes a replica's row, and checks that each change is allowed.
func (w *world) setReplica(next dstack.Replica) {
	was := w.replicas[next.ID]
	switch {
	case was.Status.IsFinished() && next.Status != was.Status:
		w.t.Fatalf("finished replica %s moved from %s to %s", next.ID, was.Status, next.Status)
	case next.Status == dstack.ReplicaTerminated:
		w.checkNothingRuns(next)
	case w.isOwned(was.Instance) && next.Instance != was.Instance && !w.reports[was.Attempt].OtherMachine && !w.reports[was.Attempt].Disrupted &&
		w.instances[was.Instance].Status != dstack.InstanceDeleted:
		w.t.Fatalf("replica %s leaves a machine that is owned: %s", next.ID, next.Reason)
	case was.Status == dstack.ReplicaUnhealthy && next.Status == dstack.ReplicaReady && !next.ReadyAt.Equal(was.ReadyAt):
		w.t.Fatalf("replica %s becomes ready again and its ReadyAt changes", next.ID)
	case was.Status == dstack.ReplicaStarting && next.Status == dstack.ReplicaReady && !next.ReadyAt.Equal(w.now):
		w.t.Fatalf("replica %s has become ready, but not now: %s", next.ID, next.ReadyAt)
	}
	if next.Status == dstack.ReplicaDraining && was.Status != dstack.ReplicaDraining {
		w.drainSequence++
		w.draining[next.ID] = w.drainSequence
	}
	if next.Status == dstack.ReplicaReady {
		w.served[next.TemplateRevision] = true
	}
	next.Version++
	*was = next
}

// checkNothingRuns fails if an attempt of a terminated replica still runs on a
// machine that is neither being deleted nor away.
func (w *world) checkNothingRuns(r dstack.Replica) {
	for _, m := range w.machines() {
		if i := w.instances[m.id]; i == nil || i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceAway {
			continue
		}
		for id, p := range m.engine {
			if w.attempts[id] == r.ID && !p.ended && !p.refused {
				w.t.Fatalf("replica %s is terminated, but its attempt %s runs", r.ID, id)
			}
		}
	}
}
