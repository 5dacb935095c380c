// Package reconcile brings the actual state of runs, replicas and instances to
// the desired one. Each pass reads facts from the store, lets decide/lifecycle
// decide, acts, and saves the step. No rule about what happens next is here.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/backend"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/placement"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
)

const (
	leaseTime         = time.Minute // a pass that takes longer may be repeated by another server
	runBatch          = 64          // runs claimed at once
	replicaBatch      = 512         // replicas claimed at once; they are read and saved together
	maxRuns           = 8           // worked on at the same time
	idleInterval      = time.Second // when nothing is due: another server may have made something due
	defaultActTimeout = 30 * time.Second
)

// Options configures a Reconciler.
type Options struct {
	Store        *store.Store
	Backends     *backend.Set
	Logs         *logs.Store
	Dialer       *dial.Dialer    // opens the connections of probes; nil: directly
	Broadcast    *loop.Broadcast // notified after each change, and sometimes without one
	Owner        string          // this server, among all that share the database
	Host         string          // this installation's host: see dstack.Instance.Host
	SSHPublicKey string          // may log in to the machines that are created; empty: none
	Limits       lifecycle.Limits
	ActTimeout   time.Duration // limits one listing of a backend, and one action on an instance; 0: 30 s
	Gateways     GatewayOptions
	Log          *slog.Logger

	// WhyNoRent returns what says, for the user, why a project may not rent a machine with a price per hour now, and what
	// helps: its budget does not allow it. An empty reason: it may. nil, or a result that is nil: every machine may be rented.
	WhyNoRent func(ctx context.Context, project dstack.ProjectID) (refuse func(price float64) (why, help string), err error)

	// Permit returns a function that fails once other servers may have taken over what this one has read since the call of
	// Permit. The passes ask it before each action outside of the database. nil: this server is alone.
	Permit func() (check func() error)
	// IsShared reports whether another server could work on an instance whose engine does not answer this one; nil: never.
	IsShared func() bool
}

// Reconciler runs six passes: over runs, replicas, instances, volumes, cloud fleets and gateways. They share
// the store, and in memory only which offers failed lately.
type Reconciler struct {
	Options
	wakes map[store.Kind]loop.Wake

	exclusionsMu sync.Mutex
	exclusions   placement.Exclusions // guarded by exclusionsMu
	failures     loop.RepeatFilter
	logCopier    *logCopier
	prober       *prober
}

// New returns a Reconciler. It does nothing until its Tasks run.
func New(o Options) *Reconciler {
	if o.ActTimeout == 0 {
		o.ActTimeout = defaultActTimeout
	}
	if o.Permit == nil {
		o.Permit = func() func() error { return func() error { return nil } }
	}
	if o.IsShared == nil {
		o.IsShared = func() bool { return false }
	}
	r := &Reconciler{
		Options: o, wakes: map[store.Kind]loop.Wake{}, logCopier: newLogCopier(o.Logs, o.Log),
	}
	for _, kind := range []store.Kind{store.Runs, store.Replicas, store.Instances, store.Volumes, store.GatewayWork, store.CloudFleets} {
		r.wakes[kind] = loop.NewWake()
	}
	if r.Dialer == nil {
		r.Dialer = &dial.Dialer{}
	}
	r.prober = newProber(r.markProbed, r.Dialer)
	return r
}

// Wake makes every pass run at once. A lost call only delays the work by one
// interval.
func (r *Reconciler) Wake() {
	for _, w := range r.wakes {
		w.Signal()
	}
}

// Tasks returns the passes, the copying of output and the probing.
func (r *Reconciler) Tasks() []loop.Task {
	return []loop.Task{
		r.newPass("run pass", store.Runs, runBatch, r.stepRuns),
		r.newPass("replica pass", store.Replicas, replicaBatch, r.stepReplicas),
		r.newInstancePass().task(),
		r.newPass("volume pass", store.Volumes, volumeBatch, r.stepVolumes),
		r.newPass("fleet pass", store.CloudFleets, fleetBatch, r.stepFleets),
		r.newGatewayPass(),
		{Name: "log copies", Run: r.logCopier.run},
		{Name: "probes", Run: r.prober.run},
	}
}

// newPass returns a task that claims up to limit rows of a kind that are due and
// passes them to work. work reports whether anything may have changed.
func (r *Reconciler) newPass(
	name string, kind store.Kind, limit int, work func(context.Context, []store.Lease) bool,
) loop.Task {
	return loop.Repeat(name, r.wakes[kind], func(ctx context.Context) (time.Duration, error) {
		leases, err := r.Store.Claim(ctx, kind, r.Owner, r.Host, time.Now(), leaseTime, limit)
		if err != nil {
			return 0, err
		}
		if len(leases) > 0 && work(ctx, leases) {
			r.Broadcast.Notify()
		}
		return r.timeUntilDue(ctx, kind)
	})
}

// forEach calls work for each lease, for up to limit at the same time, and
// reports whether any call changed something. A call that fails or panics
// concerns its own row alone: it is logged, and the row is tried again later.
func (r *Reconciler) forEach(
	ctx context.Context, leases []store.Lease, limit int, work func(store.Lease) (changed bool, err error),
) bool {
	var group errgroup.Group
	group.SetLimit(limit)
	var anyChanged atomic.Bool
	for _, l := range leases {
		group.Go(func() error {
			err := recoverPanic(func() error {
				changed, err := work(l)
				if changed || err != nil {
					anyChanged.Store(true)
				}
				return err
			})
			if err != nil {
				r.releaseFailed(ctx, []stepFailure{{l, err}})
			}
			return nil
		})
	}
	_ = group.Wait() // no call returns an error: each is logged
	return anyChanged.Load()
}

// timeUntilDue returns how long to wait until the next row of a kind is due.
func (r *Reconciler) timeUntilDue(ctx context.Context, kind store.Kind) (time.Duration, error) {
	next, err := r.Store.NextDue(ctx, kind, r.Host)
	if err != nil || next.IsZero() {
		return idleInterval, err
	}
	return min(max(time.Until(next), 0), idleInterval), nil
}

// stepFailure is a step that failed or panicked.
type stepFailure struct {
	lease store.Lease
	err   error
}

// releaseFailed logs failed steps and releases their leases. A row that was
// written in the meantime is due at once, any other after idleInterval.
func (r *Reconciler) releaseFailed(ctx context.Context, failures []stepFailure) {
	r.logFailures(ctx, failures)
	if len(failures) == 0 || ctx.Err() != nil {
		return
	}
	var conflicts, others []store.Lease
	for _, f := range failures {
		if dstack.KindOf(f.err) == dstack.Conflict {
			conflicts = append(conflicts, f.lease)
		} else {
			others = append(others, f.lease)
		}
	}
	now := time.Now()
	err := errors.Join(r.Store.ReleaseAll(ctx, conflicts, now), r.Store.ReleaseAll(ctx, others, now.Add(idleInterval)))
	if err != nil && ctx.Err() == nil {
		first := failures[0].lease
		r.Log.Error("leases were not released", "kind", first.Kind, "id", first.ID, "of", len(failures), "err", err)
	}
}

// logFailures logs failed steps, except conflicts. Equal failures in a row are
// logged once, and those of one row with growing pauses.
func (r *Reconciler) logFailures(ctx context.Context, failures []stepFailure) {
	last := ""
	for _, f := range failures {
		if ctx.Err() != nil || dstack.KindOf(f.err) == dstack.Conflict || f.err.Error() == last {
			continue
		}
		last = f.err.Error()
		skipped, ok := r.failures.Admit(fmt.Sprint(f.lease.Kind, " ", f.lease.ID), last, time.Now())
		if !ok {
			continue
		}
		attrs := []any{"kind", f.lease.Kind, "id", f.lease.ID, "err", f.err, "not_logged", skipped}
		if p, ok := errors.AsType[*panicError](f.err); ok {
			attrs = append(attrs, "stack", string(p.stack))
		}
		r.Log.Error("a step failed", attrs...)
	}
}

// panicError is a panic that was recovered. The stack is not part of its text,
// so that equal panics have equal texts.
type panicError struct {
	value any
	stack []byte // of the goroutine that panicked
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// recoverPanic calls work and returns its error, or a *panicError if it panics.
func recoverPanic(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return work()
}

// logChange logs a change of a run, a replica or an instance.
func (r *Reconciler) logChange(what, name string, from, to any, why dstack.Reason) {
	r.Log.Info("changed", "what", what, "name", name, "from", from, "to", to, "why", why)
}
