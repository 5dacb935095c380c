package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/node"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

// stepInstance decides, performs and saves the next step of an instance. Of the
// three passes, only this one calls backends and engines to change something. permit
// fails once another server may do the same.
func (r *Reconciler) stepInstance(ctx context.Context, l store.Lease, pass *instancePass, permit func() error) (changed bool, err error) {
	id := dstack.InstanceID(l.ID)
	seen, err := r.Store.InstanceFacts(ctx, id)
	if err != nil {
		return false, err
	}
	key, isFailing := seen.Instance.Backend, seen.Instance.ConsecutiveFailures > 0
	if !pass.acquire(key, isFailing) {
		return false, r.Store.Release(ctx, l, time.Now().Add(slotInterval))
	}
	defer pass.release(key, isFailing)
	b, machine, listFailure := pass.listings.findMachine(ctx, key, id)
	r.logListing(ctx, key, listFailure)
	failure := listFailure
	seen.Listed, seen.Machine, seen.Unconfigured = listFailure == nil, machine, b == nil
	step, err := lifecycle.DecideInstance(seen, time.Now())
	if err != nil {
		return false, err
	}
	var reports []dstack.Report
	var actFailure error
	if b != nil {
		reports, actFailure = r.act(ctx, b, seen, step, permit)
		failure = failureOf(step.Action, listFailure, actFailure)
		r.updateProbes(id, seen.Replicas, reports)
		step.Due = lifecycle.NextSyncTime(step, seen.Replicas, reports, time.Now())
		if err := permit(); err != nil {
			return false, err
		}
		step = step.AfterFailure(seen, actFailure, time.Now())
		r.excludeOffer(seen.Instance, step)
		if reports != nil {
			step = step.AfterAnswer(time.Now())
		}
	}
	saved, err := r.Store.SaveInstanceStep(ctx, l, seen, step, reports, failure, time.Now())
	if err != nil {
		return false, err
	}
	r.logActions(id, step.Action, actFailure)
	r.giveUp(ctx, seen.Instance, failure)
	if seen.Instance.Fleet != "" && saved {
		r.wakes[store.CloudFleets].Signal()
	}
	if seen.Instance.Status != step.To {
		r.logChange("instance", string(id), seen.Instance.Status, step.To, step.Reason)
	}
	if saved {
		r.wakes[store.Replicas].Signal()
	}
	failedBefore := seen.Instance.ConsecutiveFailures > 0
	return saved || seen.Instance.Reason != step.Reason || (failure != nil) != failedBefore, nil
}

// failureOf returns the failure of a step. An engine that was asked has failed only by itself: that its backend cannot list its
// machines now concerns neither the machine nor what runs on it.
func failureOf(action lifecycle.Action, listing, act error) error {
	if action == lifecycle.SyncEngine {
		return act
	}
	return errors.Join(listing, act)
}

// failuresToGiveUp is after how many failed calls in a row another server tries to reach an engine.
const failuresToGiveUp = 3

// giveUp lets another server work on an instance that this one cannot reach. A lost call costs one step.
func (r *Reconciler) giveUp(ctx context.Context, seen dstack.Instance, failure error) {
	if failure == nil || seen.ConsecutiveFailures < failuresToGiveUp || seen.Host != "" || !r.IsShared() {
		return
	}
	if err := r.Store.GiveUpInstance(ctx, seen.ID, dstack.ServerID(r.Host)); err != nil && ctx.Err() == nil {
		r.Log.Warn("an instance was not given up", "instance", seen.ID, "err", err)
	}
}

// logActions logs the failure of an instance's action, equal ones in a row with
// growing pauses, and the first success after it.
func (r *Reconciler) logActions(id dstack.InstanceID, action lifecycle.Action, failure error) {
	key := "instance " + string(id)
	if failure == nil {
		if r.failures.Forget(key) {
			r.Log.Info("an action succeeds again", "instance", id, "act", action)
		}
		return
	}
	if skipped, ok := r.failures.Admit(key, failure.Error(), time.Now()); ok {
		r.Log.Warn("an action failed", "instance", id, "act", action, "err", failure, "not_logged", skipped)
	}
}

// logListing logs that a backend cannot list its machines, with growing pauses for all of its instances together, and the first
// success after that.
func (r *Reconciler) logListing(ctx context.Context, backend string, failure error) {
	key := "listing " + backend
	if ctx.Err() != nil {
		return
	}
	if failure == nil {
		if r.failures.Forget(key) {
			r.Log.Info("the machines of a backend can be listed again", "backend", backend)
		}
		return
	}
	if skipped, ok := r.failures.Admit(key, string(dstack.KindOf(failure)), time.Now()); ok {
		r.Log.Warn("the machines of a backend cannot be listed; what runs on them goes on", "backend", backend, "err", failure, "not_logged", skipped)
	}
}

// act performs the action of a step, within ActTimeout. An action that takes
// longer has failed. The reports are nil unless the engine answered.
func (r *Reconciler) act(
	ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep, permit func() error,
) ([]dstack.Report, error) {
	if err := permit(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.ActTimeout)
	defer cancel()
	id := seen.Instance.ID
	switch step.Action {
	case lifecycle.NoAction:
		return nil, r.detachFromEnded(ctx, b, seen, permit)
	case lifecycle.CreateMachine:
		return nil, b.Create(ctx, r.newCreateRequest(seen))
	case lifecycle.DeleteMachine:
		r.detachBeforeDeletion(ctx, b, seen)
		return nil, b.Delete(ctx, id)
	case lifecycle.SyncEngine:
		eng, reports, err := r.askEngine(ctx, b, id, step.AnswerTimeout)
		if err != nil {
			return nil, err
		}
		reports, err = r.syncEngine(ctx, eng, seen, reports, permit)
		return reports, errors.Join(err, r.detachUnneeded(ctx, b, seen, reports, permit))
	default:
		return nil, fmt.Errorf("unknown action %q", step.Action)
	}
}

func (r *Reconciler) newCreateRequest(seen lifecycle.InstanceFacts) backend.CreateRequest {
	labels := map[string]string{backend.LabelInstance: string(seen.Instance.ID)}
	if len(seen.Replicas) > 0 { // a rented machine is for one replica
		labels[backend.LabelProject] = seen.Replicas[0].Run.Project
		labels[backend.LabelRun] = seen.Replicas[0].Run.Name
	}
	request := backend.CreateRequest{Instance: seen.Instance.ID, Offer: seen.Instance.Offer, Labels: labels, SSHPublicKey: r.SSHPublicKey}
	if fleet := seen.Instance.Offer.Fleet; fleet != "" && seen.Member != nil {
		labels[backend.LabelFleet] = fleet
		if seen.Member.IsClustered {
			request.Group = string(seen.Instance.Fleet)
		}
	}
	return request
}

// excludeOffer leaves out the offer of an instance for a while, so that its
// replica tries the next one. It is kept in memory: a restarted server tries each
// offer once more.
func (r *Reconciler) excludeOffer(i dstack.Instance, step lifecycle.InstanceStep) {
	if step.Failed == nil {
		return
	}
	r.exclusionsMu.Lock()
	defer r.exclusionsMu.Unlock()
	r.exclusions.Exclude(i.Offer, *step.Failed, time.Now())
}

// askEngine returns the engine of an instance with its reports, within a time limit; 0:
// that of ctx. The reports are not nil unless it fails.
func (r *Reconciler) askEngine(
	ctx context.Context, b backend.Backend, id dstack.InstanceID, limit time.Duration,
) (engine.Engine, []dstack.Report, error) {
	if limit == 0 {
		limit = r.ActTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	eng, err := b.Engine(ctx, id)
	if err == nil {
		var reports []dstack.Report
		if reports, err = eng.ListReports(ctx); err == nil {
			return eng, append([]dstack.Report{}, reports...), nil
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &dstack.Error{Kind: dstack.Timeout, Message: lifecycle.NoAnswer, Cause: err}
	}
	return nil, nil, err
}

// syncEngine starts, stops and removes attempts so that the engine runs what is
// placed on the instance, and returns its reports. reports are those before.
func (r *Reconciler) syncEngine(
	ctx context.Context, eng engine.Engine, seen lifecycle.InstanceFacts, reports []dstack.Report, permit func() error,
) ([]dstack.Report, error) {
	if err := r.hideSecrets(ctx, seen.Replicas, reports); err != nil {
		return nil, err
	}
	r.startLogCopies(eng, seen.Replicas, reports)
	var failures []error
	removed := map[dstack.AttemptID]bool{}
	for _, c := range lifecycle.PlanEngineCommands(seen.Instance, seen.Replicas, reports) {
		err := permit()
		if err != nil {
			return nil, err
		}
		switch c.Command {
		case lifecycle.HoldAttempt:
			reports = append(reports, dstack.Report{Attempt: c.Attempt, State: dstack.AttemptAbsent, Progress: c.Reason})
		case lifecycle.StartAttempt:
			var rep dstack.Report
			if rep, err = r.startAttempt(ctx, eng, seen.Instance, seen.Machine, c); err == nil {
				reports = append(reports, rep)
			}
		case lifecycle.StopAttempt:
			err = eng.Stop(ctx, c.Attempt, c.GracePeriod)
		case lifecycle.RemoveAttempt:
			r.logCopier.waitForEnd(ctx, c.Attempt)
			if err = eng.Remove(ctx, c.Attempt); err == nil {
				removed[c.Attempt] = true
			}
		default:
			err = fmt.Errorf("unknown engine command %q", c.Command)
		}
		failures = append(failures, err)
	}
	return withoutRemoved(reports, removed), errors.Join(failures...)
}

// startAttempt gives an attempt to the engine, with the values of its secrets, and
// returns its first report. An attempt whose secret or volume does not exist is refused.
func (r *Reconciler) startAttempt(
	ctx context.Context, eng engine.Engine, instance dstack.Instance, machine *dstack.Machine, c lifecycle.EngineCommand,
) (dstack.Report, error) {
	run, err := r.Store.ResolveSecrets(ctx, c.Placed.Run)
	if dstack.KindOf(err) == dstack.NotFound {
		return engine.NewRefusedReport(c.Attempt, err, c.Placed.Replica.AttemptAt), nil
	}
	if err != nil {
		return dstack.Report{}, err
	}
	if err := checkResolvedSize(c.Placed.Run, run); err != nil {
		return engine.NewRefusedReport(c.Attempt, err, c.Placed.Replica.AttemptAt), nil
	}
	attempt := job.BuildAttemptSpec(run, c.Placed.Replica)
	if machine != nil && attempt.Claim.Whole && len(attempt.GPUs) > 0 && len(machine.Hardware.GPUs) > 0 {
		attempt.GPUs = machine.Hardware.GPUs // its offer does not know their identifiers
	}
	if offer := instance.Offer; offer.AnyNode {
		need := job.BuildRequirements(run.Spec)
		attempt.Nodes = node.NewSelector(need, offer, placement.ListModels(need.Resources.GPU))
	}
	hostEnv, err := r.Store.HostEnv(ctx, c.Placed.Replica.Instance)
	if err != nil {
		return dstack.Report{}, err
	}
	job.AddHostEnv(&attempt, hostEnv)
	if waits, err := r.attachDisks(ctx, run, instance); err != nil || waits != "" {
		return reportDisks(c.Attempt, waits, err, c.Placed.Replica.AttemptAt)
	}
	attempt.Mounts, err = r.buildMounts(ctx, run, instance)
	if dstack.KindOf(err) == dstack.NotFound {
		return engine.NewRefusedReport(c.Attempt, err, c.Placed.Replica.AttemptAt), nil
	}
	if err != nil {
		return dstack.Report{}, err
	}
	err = eng.Start(ctx, attempt)
	return dstack.Report{Attempt: c.Attempt, State: dstack.AttemptStarting}, err
}

func withoutRemoved(reports []dstack.Report, removed map[dstack.AttemptID]bool) []dstack.Report {
	left := make([]dstack.Report, 0, len(reports))
	for _, rep := range reports {
		if !removed[rep.Attempt] {
			left = append(left, rep)
		}
	}
	return left
}

// startLogCopies starts to copy the output of each placed attempt that runs or
// has ended, unless it is being copied already. An attempt that was refused has
// none, which ends the streams that follow it.
func (r *Reconciler) startLogCopies(eng engine.Engine, placed []lifecycle.PlacedReplica, reports []dstack.Report) {
	states := map[dstack.AttemptID]dstack.AttemptState{}
	for _, rep := range reports {
		states[rep.Attempt] = rep.State
	}
	for _, p := range placed {
		key := logs.Key{Project: p.Run.Project, Run: p.Run.ID, RunName: p.Run.Name, Attempt: p.Replica.Attempt}
		state := states[key.Attempt]
		if state == dstack.AttemptRunning || state == dstack.AttemptExited {
			r.logCopier.start(eng, key)
		} else if state == dstack.AttemptRefused && !r.Logs.Finished(key) {
			r.Logs.Finish(key)
		}
	}
}

// updateProbes sets which attempts of an instance are probed, and adds the
// results so far to the engine's reports. If the engine did not answer (nil
// reports), probing continues as it is.
func (r *Reconciler) updateProbes(id dstack.InstanceID, placed []lifecycle.PlacedReplica, reports []dstack.Report) {
	if reports == nil {
		return
	}
	running := map[dstack.AttemptID]int{} // index in reports
	for i, rep := range reports {
		if rep.State == dstack.AttemptRunning {
			running[rep.Attempt] = i
		}
	}
	var targets []target
	for _, p := range placed {
		i, runs := running[p.Replica.Attempt]
		probes := job.PlanProbes(p.Replica, p.Run.Spec.Configuration)
		if runs && job.MayProbe(p.Replica, reports[i], probes) {
			targets = append(targets, target{
				Attempt: p.Replica.Attempt, Endpoint: reports[i].Endpoint, Probes: probes,
				WasReady:   p.Replica.Status == dstack.ReplicaReady || p.Replica.Status == dstack.ReplicaDraining,
				WasServing: p.Replica.ReadyAt.After(p.Replica.AttemptAt) && !probes[0].IsModelCheck,
			})
		}
	}
	r.prober.setTargets(id, targets)
	for _, t := range targets {
		reports[running[t.Attempt]].Probes = r.prober.statusOf(t.Attempt)
	}
}

// markProbed makes an instance due because the probe status of one of its
// attempts changed. A lost call costs one interval.
func (r *Reconciler) markProbed(ctx context.Context, id dstack.InstanceID) {
	if err := r.Store.MarkDue(ctx, store.Instances, string(id), time.Now()); err != nil && ctx.Err() == nil {
		r.Log.Warn("an instance was not made due", "instance", id, "err", err)
	}
	r.wakes[store.Instances].Signal()
}
