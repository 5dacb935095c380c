// Package reconcile makes what is, what was asked for: see, decide, act,
// save. The decisions are in decide/lifecycle; nothing here decides.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/backend"
	"dstack/internal/decide/autoscale"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

const (
	leaseTime = time.Minute // a pass that takes longer may be repeated by another server
	batch     = 64          // rows claimed at once
	wide      = 512         // of those that are read and saved together
	atOnce    = 8           // of one kind worked on at once
	lookAgain = time.Second // when nothing is due: another server may have made something due
	actTime   = 30 * time.Second
)

// Options is what a Reconciler works with.
type Options struct {
	Store    *store.Store
	Backends *backend.Set
	Logs     *logs.Store
	Dialer   *dial.Dialer    // opens the connections of probes; nil: directly
	Bell     *loop.Broadcast // rung after each change, and at times without one
	Owner    string          // this server, among all that share the database
	Host     string          // this installation's host: see dstack.Instance.Host
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
	if r.Dialer == nil {
		r.Dialer = &dial.Dialer{}
	}
	r.probes = newProbes(r.probed, r.Dialer)
	return r
}

// Wake makes every pass look at once. It is a hint: losing one costs an
// interval, never correctness.
func (r *Reconciler) Wake() {
	for _, w := range r.wakes {
		w.Signal()
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

// pass claims what is due of a kind and works on it. work says whether there
// may be news.
func (r *Reconciler) pass(name string, kind store.Kind, most int, work func(context.Context, []store.Lease) bool) loop.Task {
	return loop.Repeat(name, r.wakes[kind], func(ctx context.Context) (time.Duration, error) {
		leases, err := r.Store.Claim(ctx, kind, r.Owner, r.Host, time.Now(), leaseTime, most)
		if err != nil {
			return 0, err
		}
		if len(leases) > 0 && work(ctx, leases) {
			r.Bell.Notify()
		}
		return r.wait(ctx, kind)
	})
}

// each works on several rows at once, on each of them alone.
func (r *Reconciler) each(work func(context.Context, store.Lease) (news bool, err error)) func(context.Context, []store.Lease) bool {
	return func(ctx context.Context, leases []store.Lease) bool {
		var group errgroup.Group
		group.SetLimit(atOnce)
		var news atomic.Bool
		for _, l := range leases {
			group.Go(func() error {
				err := safely(func() error {
					some, err := work(ctx, l)
					if some || err != nil {
						news.Store(true)
					}
					return err
				})
				if err != nil {
					r.failed(ctx, []failure{{l, err}})
				}
				return nil
			})
		}
		_ = group.Wait() // none fails: each is logged
		return news.Load()
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

// failure is a step that failed or panicked.
type failure struct {
	lease store.Lease
	err   error
}

// failed gives rows back on which a step failed. That concerns those rows
// alone: it is logged, and tried again later.
func (r *Reconciler) failed(ctx context.Context, all []failure) {
	if len(all) == 0 {
		return
	}
	var last string
	var crossed, later []store.Lease
	for _, f := range all {
		if dstack.KindOf(f.err) == dstack.Conflict {
			crossed = append(crossed, f.lease)
			continue
		}
		later = append(later, f.lease)
		if f.err.Error() != last && ctx.Err() == nil { // one cause is told once
			r.Log.Error("a step failed", "kind", f.lease.Kind, "id", f.lease.ID, "err", f.err)
		}
		last = f.err.Error()
	}
	if ctx.Err() != nil {
		return
	}
	// Where somebody wrote in between, it is looked at afresh at once.
	err := errors.Join(r.Store.ReleaseAll(ctx, crossed, time.Now()), r.Store.ReleaseAll(ctx, later, time.Now().Add(lookAgain)))
	if err != nil && ctx.Err() == nil {
		r.Log.Error("leases were not given back", "kind", all[0].lease.Kind, "id", all[0].lease.ID, "of", len(all), "err", err)
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
func (r *Reconciler) run(ctx context.Context, l store.Lease) (news bool, err error) {
	seen, err := r.Store.RunFacts(ctx, dstack.RunID(l.ID))
	if err != nil {
		return false, err
	}
	now := time.Now()
	scale := autoscale.Decide(autoscale.BuildFacts(seen.Run, seen.Replicas, seen.Load), now)
	seen.DesiredReplicas, seen.ScaleReason, seen.ScaleDue = scale.DesiredReplicas, dstack.Reason(scale.Reason), scale.NextAt
	step, err := lifecycle.DecideRun(seen, now)
	if err != nil {
		return false, err
	}
	if err := r.Store.SaveRunStep(ctx, l, seen, step, now); err != nil {
		return false, err
	}
	r.tell(seen.Run.Status != step.To, "run", seen.Run.Name, seen.Run.Status, step.To, step.Reason)
	if step.Rollback != nil {
		r.Log.Warn("a revision was rolled back", "name", seen.Run.Name, "from", seen.Run.Revision, "to", step.Rollback.ToRevision, "why", step.Rollback.Reason)
		r.wakes[store.Runs].Signal()
	}
	if len(step.Add)+len(step.Terminate)+len(step.Drain) > 0 {
		r.wakes[store.Replicas].Signal()
		r.wakes[store.Instances].Signal()
	}
	return true, nil
}

// tell logs a change of status.
func (r *Reconciler) tell(changed bool, what, name string, from, to any, why dstack.Reason) {
	if changed {
		r.Log.Info("changed", "what", what, "name", name, "from", from, "to", to, "why", why)
	}
}
