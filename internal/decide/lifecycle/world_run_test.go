package lifecycle_test

import (
	"slices"
	"strings"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// lateStep is a step of a run that was decided a tick before it is saved.
type lateStep struct {
	seen lifecycle.RunFacts
	step lifecycle.RunStep
}

// isDue reports whether a run pass is due, by the rules of the store: its due
// time has come, or its replicas or the user's requests have changed.
func (w *world) isDue() bool {
	return w.touched || !w.runDue.IsZero() && !w.now.Before(w.runDue)
}

func (w *world) stepRun() {
	if late := w.late; late != nil {
		w.late = nil
		w.saveRun(late.seen, late.step)
		return
	}
	for _, g := range w.desiredByGroup() {
		w.touched = w.touched || w.run.Groups[g.Group].Desired != g.DesiredReplicas
	}
	if w.desired() != w.run.DesiredReplicas || w.run.Stop != dstack.StopNone {
		w.touched = true // by the load, or by its user
	}
	if !w.isDue() {
		return
	}
	seen := lifecycle.RunFacts{Run: w.run, DesiredReplicas: w.desired(), ScaleReason: "the load asks for it", InFlight: map[dstack.ReplicaID]int{},
		Groups: w.desiredByGroup()}
	for id, requests := range w.web.inFlight {
		seen.InFlight[id] = len(requests)
	}
	seen.Instances = w.unsettled()
	for _, r := range w.mine() {
		if !r.Status.IsFinished() || (r.Status == dstack.ReplicaFailed && r.TemplateRevision == w.run.TemplateRevision) {
			seen.Replicas = append(seen.Replicas, *r)
		}
	}
	step, err := lifecycle.DecideRun(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	switch {
	case w.crashes("saving a run"):
		return
	case w.chance(8, "a run is saved late"):
		w.late, w.touched = &lateStep{seen, step}, false
	default:
		w.touched = false
		w.saveRun(seen, step)
	}
}

// unsettled returns the instances of the run's replicas that are away, draining or not
// listed; all, while there are more replicas than desired.
func (w *world) unsettled() map[dstack.InstanceID]dstack.Instance {
	all := map[dstack.InstanceID]dstack.Instance{}
	hasMore := w.unfinished() > w.run.DesiredReplicas
	for _, r := range w.mine() {
		if i := w.instances[r.Instance]; i != nil && (hasMore || i.Status == dstack.InstanceAway || i.IsDraining || !i.UnlistedSince.IsZero()) {
			all[i.ID] = *i
		}
	}
	return all
}

// saveRun writes a step, unless the run has changed since seen was read, or a
// replica would have to drain first.
func (w *world) saveRun(seen lifecycle.RunFacts, step lifecycle.RunStep) {
	terminated := make([]dstack.Replica, 0, len(step.Terminate))
	for _, id := range step.Terminate {
		next, ok := step.TerminateReplica(*w.replicas[id], w.now)
		if !ok {
			w.conflicts, w.touched = w.conflicts+1, true
			return
		}
		terminated = append(terminated, next)
	}
	if w.run.Version != seen.Run.Version {
		w.conflicts, w.touched = w.conflicts+1, true
		return
	}
	var target dstack.Revision
	if b := step.Rollback; b != nil {
		target = w.revisions[b.ToRevision-1]
		if b.Reason == "" || !w.served[target.TemplateRevision] {
			w.t.Fatalf("rolls back to %d because of %q; served: %v", b.ToRevision, b.Reason, w.served)
		}
	}
	before := w.run
	w.run = step.Apply(before, target, w.now)
	w.keepGroups(step.KeptGroups(before, target), before.TemplateRevision)
	w.run.Version, w.runDue = before.Version+1, step.Due
	w.checkRun(before, step)
	if w.run.Status != before.Status || !w.run.ReadyAt.Equal(before.ReadyAt) {
		w.markReplicasDue(func(r dstack.Replica) bool { return r.Run == w.run.ID })
	}
	for _, num := range step.Add {
		r := lifecycle.NewReplica(w.run, dstack.ReplicaID(w.newID("r")), num, w.now)
		w.replicas[r.ID] = &r
		w.markReplicaDue(r.ID)
	}
	for _, id := range step.Drain {
		w.setReplica(step.DrainReplica(*w.replicas[id], w.now))
		w.markReplicaDue(id)
	}
	for _, r := range terminated {
		w.setReplica(r)
		w.markReplicaDue(r.ID)
	}
}

func (w *world) checkRun(before dstack.Run, step lifecycle.RunStep) {
	run := w.run
	if before.Status.IsFinished() && run.Status != before.Status {
		w.t.Fatalf("a finished run moved from %s to %s", before.Status, run.Status)
	}
	if step.Rollback == nil && !before.ReadyAt.IsZero() && !run.ReadyAt.Equal(before.ReadyAt) {
		w.t.Fatalf("the run was ready since %s and is since %s", before.ReadyAt, run.ReadyAt)
	}
	if limit := run.Spec.Configuration.MaxDuration; run.Ending == dstack.EndDuration && before.Ending != dstack.EndDuration {
		if limit == nil || w.now.Sub(run.StartedAt) < time.Duration(limit.Seconds)*time.Second {
			w.t.Fatalf("the run is ended for its max_duration too early: %+v", run)
		}
	}
}

// submit creates the run.
func (w *world) submit(rs dstack.RunSpec) {
	w.run.Spec, w.run.DesiredReplicas = rs, rs.Configuration.Replicas.Min
	w.run.Groups = lifecycle.NewGroupCounts(rs.Configuration, w.now)
	w.run.Revision, w.run.LatestRevision, w.run.TemplateRevision = 1, 1, 1
	w.revisions = []dstack.Revision{{Num: 1, TemplateRevision: 1, Spec: rs}}
	w.touched = true
}

// revise applies a new revision at the user's request.
func (w *world) revise(rs dstack.RunSpec, restores int) {
	seen := lifecycle.ReviseFacts{Run: w.run, HasReadyReplica: w.ready() > 0}
	if n := w.run.StableRevision; n > 0 {
		seen.Stable = &w.revisions[n-1]
	}
	rev := lifecycle.NewRevision{Present: w.run.Revision, Spec: rs, NeedsRollout: job.NeedsRollout(w.run.Spec, rs), Restores: restores}
	if rev.NeedsRollout {
		rev.Kept = job.UnchangedGroups(w.run.Spec, rs)
	}
	run, _, err := lifecycle.Revise(seen, rev, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	before := w.run.TemplateRevision
	run.Version++
	w.run, w.touched = run, true
	w.keepGroups(rev.Kept, before)
	w.revisions = append(w.revisions, dstack.Revision{Num: run.Revision, TemplateRevision: run.TemplateRevision, Spec: rs})
}

// stop records the user's request to stop the run.
func (w *world) stop(how dstack.StopRequest) {
	w.run.Stop, w.touched = how, true
	w.run.Version++
}

// keepGroups moves the replicas of groups that a new template does not change to it.
func (w *world) keepGroups(kept []string, from int) {
	if from == w.run.TemplateRevision {
		return
	}
	taken := map[int]bool{}
	for _, r := range w.mine() {
		if !r.Status.IsFinished() && r.TemplateRevision == w.run.TemplateRevision {
			taken[r.Num] = true
		}
	}
	for _, r := range w.mine() {
		if !r.Status.IsFinished() && r.TemplateRevision == from && slices.Contains(kept, r.Group) && !taken[r.Num] {
			*r = lifecycle.KeepReplica(w.run, *r)
			r.Version++
		}
	}
}

// desiredByGroup returns how many replicas autoscaling would want of each group.
func (w *world) desiredByGroup() (all []lifecycle.GroupScale) {
	for _, g := range w.run.Spec.Configuration.Groups {
		n := max(g.Replicas.Min, min(g.Replicas.Max, w.load))
		all = append(all, lifecycle.GroupScale{Group: g.Name, DesiredReplicas: n, Reason: "the load asks for it"})
	}
	return all
}

// cannotWork reports whether a configuration never becomes ready.
func cannotWork(rs dstack.RunSpec) bool {
	for _, name := range rs.Configuration.GroupNames() {
		group, _ := rs.ForGroup(name)
		if strings.HasPrefix(group.Configuration.Commands[0], "broken") {
			return true
		}
	}
	return false
}

// capacity returns how many replicas of a configuration fit on the machines, at
// most 4.
func (w *world) capacity(rs dstack.RunSpec) (n int) {
	if w.cloud != nil || w.account != nil {
		return 4
	}
	used := map[dstack.InstanceID]dstack.Allocation{}
	var offers []dstack.Offer
	for _, m := range w.machines() {
		offers = append(offers, m.offer)
	}
	for ; n < 4; n++ {
		need := job.BuildRequirements(rs)
		need.IsGlobalAdmin = true
		places, _ := placement.RankOffers(need, offers, used)
		if len(places) == 0 {
			break
		}
		placement.AddGrant(used, "", placement.Grant{Instance: places[0].Offer.OwnedInstance, Claim: places[0].Claim})
	}
	return n
}

// fixed returns a range with only one number of replicas.
func fixed(n int) spec.Replicas { return spec.Replicas{Min: n, Max: n} }
