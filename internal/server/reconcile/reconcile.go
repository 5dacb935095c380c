// Package reconcile makes what is, what was asked for: see, decide, act,
// save. The decisions are in decide/lifecycle; nothing here decides.
package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/backend"
	"dstack/internal/decide/autoscale"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

const (
	leaseTime = time.Minute // a pass that takes longer may be repeated by another server
	batch     = 64          // rows claimed at once
	wide      = 256         // of those that are read and saved together
	atOnce    = 8           // of one kind worked on at once
	lookAgain = time.Second // when nothing is due: another server may have made something due
	actTime   = 30 * time.Second
)

// Options is what a Reconciler works with.
type Options struct {
	Store    *store.Store
	Backends *backend.Set
	Logs     *logs.Store
	Bell     *loop.Bell // rung after each change
	Owner    string     // this server, among all that share the database
	Host     string     // this installation's host: see dstack.Instance.Host
	Limits   lifecycle.Limits
	ActTime  time.Duration // that one look at a machine and what follows may take; 0: 30 s
	Log      *slog.Logger
}

// Reconciler runs the three passes. They meet only in the store.
type Reconciler struct {
	Options
	wakes  map[store.Kind]loop.Wake
	copies *copies
	probes *probes
}

// New returns a Reconciler; nothing runs before its Tasks do.
func New(o Options) *Reconciler {
	if o.ActTime == 0 {
		o.ActTime = actTime
	}
	r := &Reconciler{Options: o, wakes: map[store.Kind]loop.Wake{}, copies: newCopies(o.Logs, o.Log)}
	for _, kind := range []store.Kind{store.Runs, store.Replicas, store.Instances} {
		r.wakes[kind] = loop.NewWake()
	}
	r.probes = newProbes(r.probed)
	return r
}

// Wake makes every pass look at once. It is a hint: losing one costs an
// interval, never correctness.
func (r *Reconciler) Wake() {
	for _, w := range r.wakes {
		w.Up()
	}
}

// Tasks are the passes and the copying of output.
func (r *Reconciler) Tasks() []loop.Task {
	return []loop.Task{
		r.pass("run pass", store.Runs, batch, r.each(r.run)),
		r.pass("replica pass", store.Replicas, wide, r.replicas),
		r.pass("instance pass", store.Instances, batch, r.each(r.instance)),
		{Name: "log copies", Run: r.copies.run},
		{Name: "probes", Run: r.probes.run},
	}
}

// pass claims what is due of a kind and works on it.
func (r *Reconciler) pass(name string, kind store.Kind, most int, work func(context.Context, []store.Lease)) loop.Task {
	return loop.Repeat(name, r.wakes[kind], func(ctx context.Context) (time.Duration, error) {
		leases, err := r.Store.Claim(ctx, kind, r.Owner, r.Host, time.Now(), leaseTime, most)
		if err != nil {
			return 0, err
		}
		if len(leases) > 0 {
			work(ctx, leases)
			r.Bell.Ring()
		}
		return r.wait(ctx, kind)
	})
}

// each works on several rows at once, on each of them alone.
func (r *Reconciler) each(work func(context.Context, store.Lease) error) func(context.Context, []store.Lease) {
	return func(ctx context.Context, leases []store.Lease) {
		var group errgroup.Group
		group.SetLimit(atOnce)
		for _, l := range leases {
			group.Go(func() error {
				if err := safely(func() error { return work(ctx, l) }); err != nil {
					r.failed(ctx, l, err)
				}
				return nil
			})
		}
		_ = group.Wait() // none fails: each is logged
	}
}

// wait is how long until the next row of a kind falls due.
func (r *Reconciler) wait(ctx context.Context, kind store.Kind) (time.Duration, error) {
	next, err := r.Store.NextDue(ctx, kind, r.Host)
	if err != nil || next.IsZero() {
		return lookAgain, err
	}
	return min(max(time.Until(next), 0), lookAgain), nil
}

// failed gives a row back on which a step failed or panicked. That concerns
// this row alone: it is logged, and tried again later.
func (r *Reconciler) failed(ctx context.Context, l store.Lease, err error) {
	if ctx.Err() != nil {
		return
	}
	again := time.Now().Add(lookAgain)
	if dstack.KindOf(err) == dstack.Conflict {
		again = time.Now() // somebody wrote in between: look afresh
	} else {
		r.Log.Error("a step failed", "kind", l.Kind, "id", l.ID, "err", err)
	}
	if err := r.Store.Release(ctx, l, again); err != nil && ctx.Err() == nil {
		r.Log.Error("a lease was not given back", "kind", l.Kind, "id", l.ID, "err", err)
	}
}

func safely(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return work()
}

// run is one pass over a run.
func (r *Reconciler) run(ctx context.Context, l store.Lease) error {
	seen, err := r.Store.RunFacts(ctx, dstack.RunID(l.ID))
	if err != nil {
		return err
	}
	now := time.Now()
	scale := autoscale.Decide(autoscale.Of(seen.Run, seen.Replicas, seen.Load), now)
	seen.Wanted, seen.WhyScale, seen.ScaleDue = scale.Wanted, dstack.Reason(scale.Why), scale.NextAt
	step, err := lifecycle.Run(seen, now)
	if err != nil {
		return err
	}
	if err := r.Store.SaveRunStep(ctx, l, seen, step, now); err != nil {
		return err
	}
	r.tell(seen.Run.Status != step.To, "run", seen.Run.Name, seen.Run.Status, step.To, step.Reason)
	if step.Back != nil {
		r.Log.Warn("a revision was rolled back", "name", seen.Run.Name, "from", seen.Run.Revision, "to", step.Back.To, "why", step.Back.Reason)
		r.wakes[store.Runs].Up()
	}
	if len(step.Add)+len(step.Drop)+len(step.Drain) > 0 {
		r.wakes[store.Replicas].Up()
		r.wakes[store.Instances].Up()
	}
	return nil
}

// tell logs a change of status.
func (r *Reconciler) tell(changed bool, what, name string, from, to any, why dstack.Reason) {
	if changed {
		r.Log.Info("changed", "what", what, "name", name, "from", from, "to", to, "why", why)
	}
}
