package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

// instance is one pass over an instance. It alone touches the world.
func (r *Reconciler) instance(ctx context.Context, l store.Lease) (news bool, err error) {
	id := dstack.InstanceID(l.ID)
	seen, err := r.Store.InstanceFacts(ctx, id)
	if err != nil {
		return false, err
	}
	// For the world alone: what took too long is saved as a failure.
	world, cancel := context.WithTimeout(ctx, r.ActTime)
	defer cancel()
	b, fail := r.Backends.Get(seen.Instance.Backend)
	if fail == nil {
		var machines map[dstack.InstanceID]dstack.Machine
		if machines, fail = b.Machines(world); fail == nil {
			seen.Listed = true
			if m, ok := machines[id]; ok {
				seen.Machine = &m
			}
		}
	}
	step, err := lifecycle.DecideInstance(seen, time.Now())
	if err != nil {
		return false, err
	}
	var heard []dstack.Report
	if fail == nil {
		heard, fail = r.act(world, b, seen, step)
		r.probe(id, seen.Replicas, heard)
		step.Due = lifecycle.NextSyncTime(step, seen.Replicas, heard, time.Now())
	}
	changed, err := r.Store.SaveInstanceStep(ctx, l, seen, step, heard, fail, time.Now())
	if err != nil {
		return false, err
	}
	if fail != nil {
		r.Log.Warn("an act failed", "instance", id, "act", step.Action, "err", fail)
	}
	r.tell(seen.Instance.Status != step.To, "instance", string(id), seen.Instance.Status, step.To, step.Reason)
	if changed {
		r.wakes[store.Replicas].Signal()
	}
	return changed || seen.Instance.Reason != step.Reason || (fail != nil) != (seen.Instance.ConsecutiveFailures > 0), nil
}

func (r *Reconciler) act(ctx context.Context, b backend.Backend, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep) ([]dstack.Report, error) {
	id := seen.Instance.ID
	switch step.Action {
	case lifecycle.NoAction:
		return nil, nil
	case lifecycle.CreateMachine:
		return nil, b.Create(ctx, backend.CreateRequest{Instance: id, Offer: seen.Instance.Offer})
	case lifecycle.DeleteMachine:
		return nil, b.Delete(ctx, id)
	case lifecycle.SyncEngine:
		eng, err := b.Engine(ctx, id)
		if err != nil {
			return nil, err
		}
		return r.sync(ctx, eng, seen)
	default:
		return nil, fmt.Errorf("unknown act %q", step.Action)
	}
}

// sync tells an engine all that it should run and hears all that it does.
func (r *Reconciler) sync(ctx context.Context, eng engine.Engine, seen lifecycle.InstanceFacts) ([]dstack.Report, error) {
	heard, err := eng.Running(ctx)
	if err != nil {
		return nil, err
	}
	r.copyOutput(eng, seen.Replicas, heard)
	var fails []error
	gone := map[dstack.AttemptID]bool{}
	for _, t := range lifecycle.PlanEngineCommands(seen.Replicas, heard) {
		switch t.Command {
		case lifecycle.StartAttempt:
			err = eng.Start(ctx, job.BuildAttemptSpec(t.Placed.Run, t.Placed.Replica))
			if err == nil {
				heard = append(heard, dstack.Report{Attempt: t.Attempt, State: dstack.AttemptStarting})
			}
		case lifecycle.StopAttempt:
			err = eng.Stop(ctx, t.Attempt, t.GracePeriod)
		case lifecycle.RemoveAttempt:
			r.copies.drain(ctx, t.Attempt)
			if err = eng.Remove(ctx, t.Attempt); err == nil {
				gone[t.Attempt] = true
			}
		default:
			err = fmt.Errorf("unknown verb %q", t.Command)
		}
		fails = append(fails, err)
	}
	return without(heard, gone), errors.Join(fails...)
}

func without(heard []dstack.Report, gone map[dstack.AttemptID]bool) []dstack.Report {
	left := make([]dstack.Report, 0, len(heard))
	for _, rep := range heard {
		if !gone[rep.Attempt] {
			left = append(left, rep)
		}
	}
	return left
}

// copyOutput sees to it that the output of everything placed is copied.
func (r *Reconciler) copyOutput(eng engine.Engine, placed []lifecycle.PlacedReplica, heard []dstack.Report) {
	has := map[dstack.AttemptID]bool{}
	for _, rep := range heard {
		has[rep.Attempt] = rep.State == dstack.AttemptRunning || rep.State == dstack.AttemptExited
	}
	for _, p := range placed {
		if a := p.Replica.Attempt; has[a] {
			r.copies.begin(eng, logs.Key{Project: p.Run.Project, Run: p.Run.ID, RunName: p.Run.Name, Attempt: a})
		}
	}
}

// probe sees to it that all that runs with probes is asked, and adds what they
// say to what the engine said.
func (r *Reconciler) probe(id dstack.InstanceID, placed []lifecycle.PlacedReplica, heard []dstack.Report) {
	if heard == nil {
		return // the engine does not answer: all goes on
	}
	at := map[dstack.AttemptID]int{}
	for i, rep := range heard {
		if rep.State == dstack.AttemptRunning {
			at[rep.Attempt] = i
		}
	}
	var on []probed
	for _, p := range placed {
		i, runs := at[p.Replica.Attempt]
		asked := p.Run.Spec.Configuration.Probes
		open := runs && (heard[i].Ready || serves(p.Replica)) // a port that never opened answers no probe
		if open && len(asked) > 0 {
			on = append(on, probed{
				Attempt: p.Replica.Attempt, Address: heard[i].Address, Probes: asked,
				WasReady: p.Replica.Status == dstack.ReplicaReady || p.Replica.Status == dstack.ReplicaDraining,
				Served:   p.Replica.ReadyAt.After(p.Replica.AttemptAt),
			})
		}
	}
	r.probes.keep(id, on)
	for _, p := range on {
		heard[at[p.Attempt]].Probes = r.probes.of(p.Attempt)
	}
}

// probed makes an instance due because a probe of one of its replicas says
// something new. Losing that costs an interval.
func (r *Reconciler) probed(ctx context.Context, id dstack.InstanceID) {
	if err := r.Store.MarkDue(ctx, store.Instances, string(id), time.Now()); err != nil && ctx.Err() == nil {
		r.Log.Warn("an instance was not made due", "instance", id, "err", err)
	}
	r.wakes[store.Instances].Signal()
}

// serves says that a replica was ready.
func serves(r dstack.Replica) bool {
	return r.Status == dstack.ReplicaReady || r.Status == dstack.ReplicaUnhealthy || r.Status == dstack.ReplicaDraining
}
