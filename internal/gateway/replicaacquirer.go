package gateway

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// missingWait is how long an authorized caller waits for a newer table before
// the response says that a run or a model does not exist: the API responds to a
// submission a moment before the table has it.
const missingWait = 250 * time.Millisecond

// replicaAcquirer finds a ready replica for a request, and waits for one while
// there is none. Fields change under the lock of the wait queue while the
// request waits, else by the request's goroutine.
type replicaAcquirer struct {
	request *proxyRequest
	access  access
	chosen  *route.Route // the run to try next, by limit; nil: choose again
	limited dstack.RunID // the run whose rate limit the request has passed

	replica      *readyReplica // counts the request; nil: none yet, or not any more
	lastReplica  *readyReplica // the latest replica
	err          error         // why there is no replica
	waitsFor     *route.Route
	waitingSince time.Time
	arrival      arrival // where the request is counted as demand
	retries      retries
}

// authorize makes sure that the caller may use what the request names, and
// waits for the first route table. A run or model that is not in the table gets
// missingWait to appear.
func (a *replicaAcquirer) authorize() error {
	return a.retryMissing(func() error {
		for {
			if v := a.request.gateway.loads.view.Load(); v != nil {
				return a.access.authorizeBy(v, a.request)
			}
			if err := a.waitForTable(); err != nil {
				return err
			}
		}
	})
}

// limit chooses the run that the request goes to or waits for, and refuses a
// request whose caller sends that run too many.
func (a *replicaAcquirer) limit() error {
	a.chosen = a.chooseRoute()
	return a.checkRateLimit(a.chosen)
}

// chooseRoute returns the route of the replica that is picked next, else the
// route to wait for.
func (a *replicaAcquirer) chooseRoute() *route.Route {
	routes := a.access.routes
	if len(routes) == 1 {
		return routes[0]
	}
	if r := a.request.gateway.loads.nextRoute(a.access.view, routes, a.retries.excluded); r != nil {
		return r
	}
	return nearestToReady(routes)
}

// acquire finds a ready replica, and waits for one while there is none. It
// returns a *responseError, or the context's error once the client has left.
func (a *replicaAcquirer) acquire() error { return a.retryMissing(a.waitForReplica) }

// release ends the request at its replica.
func (a *replicaAcquirer) release() {
	if a.replica != nil {
		a.request.gateway.loads.release(a.replica)
		a.replica = nil
	}
}

// retryMissing repeats find with newer tables while what the request names does
// not exist, up to missingWait. Callers without access get another error, so
// they do not learn from the delay either.
func (a *replicaAcquirer) retryMissing(find func() error) error {
	err := find()
	if !isMissing(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(a.request.ctx(), missingWait)
	defer cancel()
	loads := a.request.gateway.loads
	for isMissing(err) {
		old := a.access.view
		if a.request.gateway.queue.wait(ctx, "", func() bool { return loads.view.Load() != old }) != nil {
			return err
		}
		err = find()
	}
	return err
}

func isMissing(err error) bool {
	e, ok := errors.AsType[*responseError](err)
	return ok && e.Kind == dstack.NotFound
}

// waitForReplica tries the present table and each new one, until there is a
// replica, an error, or the time to wait is over.
func (a *replicaAcquirer) waitForReplica() error {
	for !a.tryAcquire() {
		err := a.waitUntilReady()
		switch {
		case err == nil && !a.retries.hasExcluded():
			a.retries.refusedSince = time.Time{} // replicas were away and are back
			return a.err
		case err == nil:
			return a.err
		case a.request.ctx().Err() != nil, !errors.Is(err, context.DeadlineExceeded), !a.retries.hasExcluded():
			return a.waitError(err)
		case time.Since(a.retries.refusedSince) >= a.request.gateway.limits.RefusedTimeout:
			return a.retries.lastErr
		default:
			a.retries.clearExcluded()
		}
	}
	return a.err
}

// tryAcquire tries the present table. It returns true once there is a replica
// or an error. It runs under the lock of the wait queue, and must not block.
func (a *replicaAcquirer) tryAcquire() bool {
	loads := a.request.gateway.loads
	for {
		v := loads.view.Load()
		if a.tryAcquireFrom(v) {
			return true
		}
		if loads.view.Load() == v { // otherwise the newer table may have a replica
			return false
		}
	}
}

func (a *replicaAcquirer) tryAcquireFrom(v *view) bool {
	loads := a.request.gateway.loads
	a.waitsFor, a.err = nil, nil
	if a.chosen == nil || a.access.view != v {
		if a.err = a.access.authorizeBy(v, a.request); a.err != nil {
			return true
		}
		if a.err = a.limit(); a.err != nil {
			return true
		}
	}
	r := a.chosen
	a.chosen = nil
	a.replica = loads.pickReplica(v, a.access.only(r), a.retries.excluded, a.lastReplica != nil)
	if a.replica != nil {
		a.lastReplica = a.replica
		loads.countArrival(&a.arrival, r.Run)
		return true
	}
	if a.err = rejectIfUnstartable(r); a.err != nil {
		return true
	}
	a.waitsFor = r
	loads.countArrival(&a.arrival, r.Run)
	return false
}

// rejectIfUnstartable returns an error for a run that never gets a replica.
func rejectIfUnstartable(r *route.Route) error {
	switch {
	case r.IsStopping:
		return &responseError{isLasting: true, details: details{Kind: dstack.Unavailable, Message: r.Name + " is being stopped",
			Hint: "start it again: dstack apply"}}
	case r.NeverServes:
		return &responseError{isLasting: true, details: details{Kind: dstack.Unavailable, Message: notReady(r),
			Hint: "change its configuration: dstack apply"}}
	default:
		return nil
	}
}

// nearestToReady returns the route to wait for while none is ready: a run that
// starts, else one that the request wakes.
func nearestToReady(routes []*route.Route) *route.Route {
	return slices.MinFunc(routes, func(a, b *route.Route) int { return cmp.Compare(startRank(a), startRank(b)) })
}

// startRank orders runs by how far they are from a ready replica.
func startRank(r *route.Route) int {
	switch {
	case r.IsStopping:
		return 3
	case r.NeverServes:
		return 2
	case r.IsSleeping:
		return 1
	default:
		return 0
	}
}

// waitForTable waits for the first route table.
func (a *replicaAcquirer) waitForTable() error {
	g := a.request.gateway
	w := &waiter{try: func() bool { return g.loads.view.Load() != nil }}
	return a.waitError(a.waitIn(w, g.limits.MaxHeld, a.waitDeadline(g.limits.HoldTimeout)))
}

// waitUntilReady waits until a try succeeds: as long as the run's rules allow,
// or for refusedPause while ready replicas refuse connections.
func (a *replicaAcquirer) waitUntilReady() error {
	g, hold := a.request.gateway, a.waitsFor.Rules.Hold
	deadline := a.waitDeadline(cmp.Or(time.Duration(hold.Timeout)*time.Second, g.limits.HoldTimeout))
	if a.retries.hasExcluded() {
		deadline = time.Now().Add(refusedPause)
	}
	w := &waiter{run: a.waitsFor.Run, try: a.tryAcquire}
	if model := a.request.model; model != nil {
		w.bytes = model.body.held.bytes
		if model.Streams() {
			model.keepAlive.scheduleFirst()
		}
	}
	return a.waitIn(w, cmp.Or(hold.Requests, g.limits.MaxHeld), deadline)
}

// waitDeadline is when a request has waited for a timeout since it first waited.
func (a *replicaAcquirer) waitDeadline(timeout time.Duration) time.Time {
	if a.waitingSince.IsZero() {
		a.waitingSince = time.Now()
	}
	return a.waitingSince.Add(timeout)
}

// waitIn waits in the queue until the waiter's try succeeds, or returns why it
// does not.
func (a *replicaAcquirer) waitIn(w *waiter, maxRequests int, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(a.request.ctx(), deadline)
	defer cancel()
	queue := a.request.gateway.queue
	waits, err := queue.enqueue(w, maxRequests)
	if !waits {
		return err
	}
	if w.bytes > 0 {
		a.request.model.body.releaseReading() // the queue counts its bytes now
	}
	return queue.dequeue(w, a.watchWait(ctx, w))
}

// watchWait returns nil when a wait is over. Until then it sends keep-alive
// comments, and returns an error when ctx ends or the client disconnects.
func (a *replicaAcquirer) watchWait(ctx context.Context, w *waiter) error {
	var checkPeer <-chan time.Time
	peer := a.request.peerConn()
	if peer != nil {
		ticker := time.NewTicker(peerInterval)
		defer ticker.Stop()
		checkPeer = ticker.C
	}
	var keepAlive *keepAlive
	if a.request.model != nil {
		keepAlive = &a.request.model.keepAlive
	}
	for {
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-checkPeer:
			if hasHungUp(peer) {
				return errDisconnected
			}
		case <-keepAlive.timer():
			if err := keepAlive.sendComment(); err != nil {
				return err
			}
		}
	}
}

// waitError translates why a wait ended, for the response.
func (a *replicaAcquirer) waitError(err error) error {
	if err != nil && a.request.ctx().Err() != nil {
		return a.request.ctx().Err()
	}
	return newWaitError(err, a.waitsFor, a.request.gateway.limits)
}

// newWaitError says why a wait for a run ended; nil: for the first route table.
func newWaitError(err error, waitsFor *route.Route, limits Limits) error {
	message := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return newTimeoutError(waitsFor)
	case errors.Is(err, errQueueFull) && waitsFor != nil:
		message = waitsFor.Name + " is not ready, and the queue for it is full"
	case errors.Is(err, errQueueBytes):
		message = waitsFor.Name + " is not ready, and the waiting requests use all " +
			human.Bytes(limits.HeldBytes) + " allowed"
	case errors.Is(err, errQueueFull), errors.Is(err, errStopping):
		message = err.Error()
	default:
		return err
	}
	return &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable, Message: message, Hint: "try again"}}
}

// newTimeoutError is for a request that has waited as long as it may.
func newTimeoutError(waitsFor *route.Route) error {
	e := &responseError{retryAfter: 5, details: details{Kind: dstack.Unavailable,
		Message: "the gateway has no routes yet", Hint: "try again"}}
	if waitsFor != nil {
		e.Message = notReady(waitsFor)
		e.Hint = "try again, or see what it does: dstack logs " + waitsFor.Name
	}
	return e
}

// notReady says why a run has no replica.
func notReady(r *route.Route) string {
	if r.State == "" {
		return r.Name + " is not ready"
	}
	return r.Name + " is not ready: " + string(r.State)
}
