package lifecycle_test

import (
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// machine is a simulated machine with its engine, in its true state: rows of the
// store may differ.
type machine struct {
	id                    dstack.InstanceID
	offer                 dstack.Offer // of one that is not rented
	isDraining            bool
	isRemoved             bool      // of a node: its cluster has it no more
	removedAt             time.Time // when that began
	savedAt               time.Time // when an answer of its engine was saved
	engine                map[dstack.AttemptID]*proc
	listedAt, aliveAt     time.Time // when its backend lists it; when it is up
	failed                bool      // it exists, but nothing runs on it
	takenBackAt           time.Time // when its cloud takes it back; zero: it does not
	silentAt, silentUntil time.Time // its engine does not answer in between; its attempts continue
}

// proc is one attempt on a machine.
type proc struct {
	broken          bool
	runsAt, readyAt time.Time // image pulled; port open
	failsProbes     bool
	failedProbes    int       // consecutive
	diesAt          time.Time // when it ends after it was stopped
	stopping, ended bool
	refused         bool
	isDiskFull      bool // why it was refused
	isDisrupted     bool // its cluster ended it
	isDeleted       bool // its pod is being deleted by someone
	code            int
	claim           dstack.Claim // of its replica when it was started
}

func newMachine(id dstack.InstanceID, listedAt, aliveAt time.Time) *machine {
	return &machine{id: id, engine: map[dstack.AttemptID]*proc{}, listedAt: listedAt, aliveAt: aliveAt}
}

// machines returns all machines, the owned one first.
func (w *world) machines() (all []*machine) {
	if w.owned != nil {
		all = append(all, w.owned)
	}
	all = append(all, w.hosts...)
	if w.cloud != nil {
		for _, id := range sorted(w.cloud.machines) {
			all = append(all, w.cloud.machines[id])
		}
	}
	if w.account != nil {
		for _, id := range sorted(w.account.machines) {
			all = append(all, w.account.machines[id])
		}
	}
	return all
}

// lose ends a rented machine.
func (w *world) lose(id dstack.InstanceID) {
	if w.account != nil {
		w.account.end(id, false)
		return
	}
	delete(w.cloud.machines, id)
}

func (w *world) machine(id dstack.InstanceID) *machine {
	all := w.machines()
	if i := slices.IndexFunc(all, func(m *machine) bool { return m.id == id }); i >= 0 {
		return all[i]
	}
	return nil
}

// live advances a machine by a tick: attempts crash or change their health, and
// the machine fails, at random.
func (w *world) live(m *machine) {
	if !w.now.Before(m.silentUntil) && w.chance(250, "its engine falls silent") {
		m.silentAt = w.now
		m.silentUntil = w.after(1500, "silent for")
	}
	w.liveRemotely(m)
	for _, id := range sorted(m.engine) {
		p := m.engine[id]
		switch {
		case w.isNode(m) && w.now.Before(m.silentUntil): // what the cluster tells it waits
		case p.stopping && !w.now.Before(p.diesAt):
			p.ended, p.code, p.isDisrupted = true, 143, p.isDeleted
		case !p.ended && p.broken && !w.now.Before(p.runsAt):
			p.ended, p.code = true, 1
		case !p.ended && w.chance(60, "it crashes"):
			p.ended, p.code = true, 1
		case w.chance(150, "another user removes it"):
			delete(m.engine, id)
		case w.chance(40, "its health changes"):
			p.failsProbes = !p.failsProbes
		case !w.faults:
			p.failsProbes = false
		}
	}
	if !w.isOwned(m.id) && w.chance(400, "the machine is lost") {
		w.lose(m.id)
	}
	if !w.isOwned(m.id) && w.chance(400, "the machine fails") {
		m.failed = true
		clear(m.engine)
	}
}

// liveRemotely pulls the cable of a remote host for a while, or cuts its power, at random.
func (w *world) liveRemotely(m *machine) {
	if w.host(m.id) == nil || w.now.Before(m.silentUntil) {
		return
	}
	w.disruptPods(m)
	isOff := w.chance(300, "its power is cut")
	if isOff || w.chance(150, "its cable is pulled") {
		m.silentAt, m.silentUntil = w.now, w.after(rapid.SampledFrom([]int{20, 40, 400}).Draw(w.t, "at most"), "for")
	}
	if isOff {
		for _, p := range m.engine {
			p.ended, p.code = true, 137
		}
	}
	if w.chance(300, "it drains") {
		m.isDraining = !m.isDraining
	}
}

func (w *world) stepInstance(i *dstack.Instance) {
	if late, ok := w.unsaved[i.ID]; ok {
		delete(w.unsaved, i.ID)
		w.saveInstance(i, late)
		return
	}
	if i.Status == dstack.InstanceDeleted {
		return
	}
	seen := lifecycle.InstanceFacts{Instance: *i}
	var listFailure error
	seen.Listed, seen.Machine = w.list(i.ID)
	if !seen.Listed {
		listFailure = errors.New("its backend does not answer")
	}
	for _, id := range sorted(w.replicas) {
		if r := w.replicas[id]; r.Instance == i.ID && !r.Status.IsFinished() {
			seen.Replicas = append(seen.Replicas, lifecycle.PlacedReplica{Replica: *r, Run: w.runOf(*r)})
			if rep, ok := w.reports[r.Attempt]; ok {
				seen.Reports = append(seen.Reports, rep)
			}
		}
	}
	step, err := lifecycle.DecideInstance(seen, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.account != nil && w.crashes("acting on an instance") {
		return
	}
	reports, failure := w.act(seen, step)
	if w.crashes("saving an instance") {
		return
	}
	step = step.AfterFailure(seen, failure, w.now)
	if reports != nil {
		step = step.AfterAnswer(w.now)
	}
	if step.Failed != nil && w.account != nil {
		w.exclusions.Exclude(i.Offer, *step.Failed, w.now)
	}
	late := lateInstance{seen, step, reports, errors.Join(listFailure, failure)}
	if w.account != nil && w.chance(12, "an instance is saved late") {
		w.unsaved[i.ID] = late
		return
	}
	w.saveInstance(i, late)
}

// lateInstance is a step of an instance that was decided and done, and is not saved yet.
type lateInstance struct {
	seen    lifecycle.InstanceFacts
	step    lifecycle.InstanceStep
	reports []dstack.Report
	failure error
}

// saveInstance writes a step, unless the instance has changed since seen was read.
func (w *world) saveInstance(i *dstack.Instance, l lateInstance) {
	seen, step, reports := l.seen, l.step, l.reports
	if i.Version != seen.Instance.Version {
		w.conflicts++
		return
	}
	w.checkInstance(seen, step)
	version, before, was := i.Version, i.Status, *i
	*i = step.Apply(seen, reports != nil, l.failure, w.now)
	i.Version = version + 1
	if i.Status != was.Status || i.IsDraining != was.IsDraining || i.UnlistedSince.IsZero() != was.UnlistedSince.IsZero() {
		for _, p := range seen.Replicas {
			w.tenants[p.Replica.Run].touched = true
		}
	}
	if i.Status != before {
		w.markReplicasDue(func(r dstack.Replica) bool { return r.Instance == i.ID })
	}
	if reports != nil {
		if m := w.host(i.ID); m != nil {
			m.savedAt = w.now
		}
		w.saveReports(seen.Replicas, reports)
	}
}

// list returns what an instance's backend lists for it.
func (w *world) list(id dstack.InstanceID) (listed bool, m *dstack.Machine) {
	switch {
	case w.chance(15, "the backend does not answer"):
		return false, nil
	case w.isNode(w.host(id)):
		return w.listNode(w.host(id))
	case w.isOwned(id):
		m := w.machine(id)
		listed := &dstack.Machine{State: dstack.MachineRunning, IsDraining: m.isDraining}
		if w.host(id) != nil && w.now.Sub(m.silentAt) > 6*time.Second && w.now.Before(m.silentUntil) {
			listed.SilentSince = m.silentAt
		}
		return true, listed
	case w.account != nil:
		return true, w.account.describe(id)
	default:
		return true, w.cloud.describe(id)
	}
}

func (w *world) act(seen lifecycle.InstanceFacts, step lifecycle.InstanceStep) ([]dstack.Report, error) {
	id := seen.Instance.ID
	switch step.Action {
	case lifecycle.NoAction:
		return nil, nil
	case lifecycle.CreateMachine:
		if w.account != nil {
			return nil, w.account.create(seen.Instance)
		}
		return nil, w.cloud.create(id)
	case lifecycle.DeleteMachine:
		if w.account != nil {
			return nil, w.account.delete(id)
		}
		return nil, w.cloud.delete(id)
	case lifecycle.SyncEngine:
		m := w.machine(id)
		if w.isNode(m) {
			return w.syncPods(m, seen)
		}
		if m == nil || m.failed || w.now.Before(m.aliveAt) || w.now.Before(m.silentUntil) || w.chance(6, "its engine does not answer once") {
			return nil, errors.New("no answer")
		}
		return w.sync(m, seen), nil
	default:
		w.t.Fatalf("unknown action %q", step.Action)
		return nil, nil
	}
}

// checkInstance fails if an instance is deleted without a valid reason.
func (w *world) checkInstance(seen lifecycle.InstanceFacts, step lifecycle.InstanceStep) {
	i := seen.Instance
	was, to := i.Status, step.To
	if to == was {
		return
	}
	isRemote := w.host(i.ID) != nil
	switch {
	case w.isNode(w.host(i.ID)):
		w.checkNode(w.host(i.ID), step)
	case isRemote && to == dstack.InstanceAway:
		if silence := w.now.Sub(w.host(i.ID).savedAt); silence < 10*time.Second {
			w.t.Fatalf("host %s is away after %s of silence: %s", i.ID, silence, step.Reason)
		}
	case w.isOwned(i.ID) && to != dstack.InstanceUp:
		w.t.Fatalf("an owned machine is %s: %s", to, step.Reason)
	case was == dstack.InstanceDeleting && to != dstack.InstanceDeleted:
		w.t.Fatalf("instance %s moved from %s to %s", i.ID, was, to)
	case was == dstack.InstanceUp && to == dstack.InstanceDeleting && len(seen.Replicas) > 0:
		m := w.machine(i.ID)
		if m == nil || m.failed {
			return
		}
		since := m.silentAt
		if since.Before(w.upSince) {
			since = w.upSince
		}
		if !w.now.Before(m.silentUntil) || w.now.Sub(since) < 4*time.Minute {
			w.t.Fatalf("instance %s is deleted though it was not silent for long: %s", i.ID, step.Reason)
		}
	}
}

// saveReports saves the reports of the attempts that are placed: what was heard,
// or that they are absent.
func (w *world) saveReports(placed []lifecycle.PlacedReplica, heard []dstack.Report) {
	for _, p := range placed {
		r := w.replicas[p.Replica.ID]
		facts := lifecycle.ReportFacts{Attempt: r.Attempt, Since: r.Since}
		if r.Attempt == p.Replica.Attempt {
			facts.SinceAtSync = &p.Replica.Since
		}
		for i := range heard {
			if heard[i].Attempt == r.Attempt {
				facts.Heard = &heard[i]
			}
		}
		if saved, ok := w.reports[r.Attempt]; ok {
			facts.Saved = &saved
		}
		if rep, mustSave := lifecycle.MergeReport(facts); rep != nil {
			w.saveReport(r.ID, facts.Saved, *rep, mustSave)
		}
	}
}

// sync executes the commands that an engine receives.
func (w *world) sync(m *machine, seen lifecycle.InstanceFacts) []dstack.Report {
	has := make([]dstack.Report, 0, len(m.engine))
	for _, id := range sorted(m.engine) {
		has = append(has, w.report(m, id))
	}
	for _, c := range lifecycle.PlanEngineCommands(seen.Instance, seen.Replicas, has) {
		switch c.Command {
		case lifecycle.HoldAttempt:
			has = append(has, dstack.Report{Attempt: c.Attempt, State: dstack.AttemptAbsent, Progress: c.Reason})
		case lifecycle.StartAttempt:
			w.checkStart(m, *c.Placed)
			if m.engine[c.Attempt] == nil {
				runs := w.after(6, "pulled in")
				isDiskFull := w.host(m.id) != nil && w.chance(20, "its disk is full")
				m.engine[c.Attempt] = &proc{isDiskFull: isDiskFull, broken: cannotWork(c.Placed.Run.Spec), runsAt: runs, readyAt: runs.Add(2 * tick), refused: isDiskFull || w.chance(10, "refused"), claim: c.Placed.Replica.Claim}
			}
			has = append(has, w.report(m, c.Attempt))
		case lifecycle.StopAttempt:
			w.stopAttempt(m, c)
		case lifecycle.RemoveAttempt:
			delete(m.engine, c.Attempt)
			has = slices.DeleteFunc(has, func(rep dstack.Report) bool { return rep.Attempt == c.Attempt })
		default:
			w.t.Fatalf("unknown command %q", c.Command)
		}
	}
	return has
}

// checkStart fails if something is started on a remote host before what no replica has was
// stopped there, or before what another attempt holds of it is free.
func (w *world) checkStart(m *machine, starts lifecycle.PlacedReplica) {
	if w.host(m.id) == nil || w.isNode(m) { // a cluster knows what its pods hold
		return
	}
	for id, p := range m.engine {
		if p.ended || p.refused {
			continue
		}
		if r := w.replicas[w.attempts[id]]; r.Status.IsFinished() {
			w.t.Fatalf("%s is started on %s while attempt %s of finished replica %s runs there", starts.Replica.ID, m.id, id, r.ID)
		}
		for _, held := range placement.ExclusiveKeys(p.claim) {
			if slices.Contains(placement.ExclusiveKeys(starts.Replica.Claim), held) {
				w.t.Fatalf("%s is started on %s while attempt %s holds %s", starts.Replica.ID, m.id, id, held)
			}
		}
	}
}

// stopAttempt stops an attempt. It checks that the attempt is not both healthy
// and wanted, and that requests in flight end only after the drain deadline.
func (w *world) stopAttempt(m *machine, c lifecycle.EngineCommand) {
	p := m.engine[c.Attempt]
	r := w.replicas[w.attempts[c.Attempt]]
	healthy := !p.ended && !w.now.Before(p.readyAt) && !p.stopping && !p.failsProbes
	if healthy && r.Status == dstack.ReplicaReady && r.Attempt == c.Attempt {
		w.t.Fatalf("healthy attempt %s of replica %s was stopped", c.Attempt, r.ID)
	}
	drained := r.Attempt == c.Attempt && r.Status == dstack.ReplicaTerminating && r.Graceful && !r.DrainDeadline.IsZero()
	if n := len(w.tenants[r.Run].web.inFlight[r.ID]); healthy && w.host(m.id) == nil && n > 0 && drained && w.now.Before(r.DrainDeadline) {
		w.t.Fatalf("replica %s ends with %d requests in flight, %s early", r.ID, n, r.DrainDeadline.Sub(w.now))
	}
	if !p.stopping || p.isDeleted && p.diesAt.After(w.now.Add(4*tick)) {
		p.stopping, p.diesAt = true, w.after(4, "dies in")
	}
}

func (w *world) report(m *machine, id dstack.AttemptID) dstack.Report {
	p := m.engine[id]
	rep := dstack.Report{Attempt: id, At: w.now, StartedAt: p.runsAt}
	switch {
	case p.refused:
		rep.State, rep.Error = dstack.AttemptRefused, "no"
		rep.OtherMachine = p.isDiskFull
	case p.ended:
		rep.State, rep.ExitCode, rep.EndedAt, rep.Disrupted = dstack.AttemptExited, p.code, w.now, p.isDisrupted
	case w.now.Before(p.runsAt):
		rep.State = dstack.AttemptPulling
	default:
		rep.State, rep.Ready = dstack.AttemptRunning, !w.now.Before(p.readyAt)
		rep.Endpoint.Address = string(m.id) + ":80"
		if p.failedProbes++; !p.failsProbes {
			p.failedProbes = 0
		}
		rep.Probes = &dstack.ProbeStatus{
			Ready:               rep.Ready && !p.failsProbes,
			ConsecutiveFailures: min(p.failedProbes, dstack.ProbeFailureThreshold),
			Message:             "GET / answered 500",
		}
	}
	if p.isDeleted && !rep.State.IsOver() {
		rep.Ready, rep.Ending = false, "its pod is being deleted"
	}
	return rep
}
