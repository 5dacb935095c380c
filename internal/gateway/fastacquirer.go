package gateway

import (
	"cmp"
	"context"
	"errors"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/relay"
)

// fastAcquirer finds a ready replica for a request on the fast path, and waits for one while there is none, as replicaAcquirer
// does on the slow path: without a goroutine, by a callback of the wait queue.
type fastAcquirer struct {
	request *fastRequest
	chosen  *route.Route // the run to try next, as limit has chosen it; nil: choose again
	limited dstack.RunID // the run whose rate limit the request has passed
	checked dstack.RunID // the run whose limits were looked at

	replica      *readyReplica // counts the request; nil: none yet, or not any more
	lastReplica  *readyReplica // the latest replica
	handsOver    bool          // the slow path is to go on
	err          error         // why there is no replica
	waitsFor     *route.Route
	waitingSince time.Time
	deadline     time.Time // of the present wait
	arrival      arrival   // where the request is counted as demand
	retries      retries
	isWaiting    bool // waiter is in the queue, or its end was not seen yet
	waiter       waiter
}

func (a *fastAcquirer) init(f *fastRequest) {
	a.request = f
	a.waiter = waiter{try: a.tryAcquire, notify: a.notify}
}

func (a *fastAcquirer) reset() {
	a.limited, a.checked = "", ""
	a.chosen, a.replica, a.lastReplica, a.handsOver, a.err = nil, nil, nil, false, nil
	a.waitsFor, a.waitingSince, a.deadline, a.arrival, a.isWaiting = nil, time.Time{}, time.Time{}, arrival{}, false
	excluded := a.retries.excluded[:0]
	a.retries = retries{excluded: excluded}
}

// notify tells the event loop that the wait is over. It is called under the lock of the queue.
func (a *fastAcquirer) notify() { a.request.handle.Wake() }

// limit chooses the run that the request goes to or waits for, and refuses a request whose caller sends that run too many.
func (a *fastAcquirer) limit() error {
	a.chosen = a.chooseRoute()
	return a.checkRateLimit(a.chosen)
}

// chooseRoute chooses as replicaAcquirer does on the slow path.
func (a *fastAcquirer) chooseRoute() *route.Route {
	access := &a.request.access
	if len(access.routes) == 1 {
		return access.routes[0]
	}
	if r := a.request.gateway.loads.nextRoute(access.view, access.routes, a.retries.excluded); r != nil {
		return r
	}
	return nearestToReady(access.routes)
}

// checkRateLimit refuses as replicaAcquirer does on the slow path.
func (a *fastAcquirer) checkRateLimit(r *route.Route) error {
	if a.limited == r.Run || len(r.Rules.Limits) == 0 {
		return nil
	}
	a.checked = r.Run
	rule, ok := longestRule(r.Rules.Limits, a.request.limitedPath(r))
	if !ok {
		return nil
	}
	g := a.request.gateway
	wait := g.rateLimiter.takeForRun(r.Run, rule, a.request.callerKey(rule.Key))
	if wait == 0 {
		a.limited = r.Run
		return nil
	}
	g.loads.countLimited(r.Run)
	return newRunLimitError(wait, r, rule)
}

// acquire finds a replica and sends the request there, waits for one, or fails.
func (a *fastAcquirer) acquire() relay.Step {
	if a.tryAcquire() {
		return a.conclude()
	}
	return a.wait()
}

// conclude goes on after tryAcquire returned true.
func (a *fastAcquirer) conclude() relay.Step {
	f := a.request
	switch {
	case a.handsOver:
		return f.handOver()
	case a.err != nil:
		return f.fail(a.err)
	}
	return f.send()
}

// tryAcquire tries the present table. It returns true once there is a replica or an error. It runs in the goroutine of the event
// loop, or under the lock of the wait queue; so it reads nothing of the exchange, and must not block.
func (a *fastAcquirer) tryAcquire() bool {
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

func (a *fastAcquirer) tryAcquireFrom(v *view) bool {
	f, loads := a.request, a.request.gateway.loads
	a.waitsFor, a.err = nil, nil
	if a.handsOver {
		return true
	}
	if a.chosen == nil || f.access.view != v {
		if f.access.view != v && !f.reauthorize(v) {
			a.handsOver = true
			return true
		}
		a.chosen = a.chooseRoute()
		if a.checked != a.chosen.Run && len(a.chosen.Rules.Limits) > 0 {
			a.handsOver = true // another run with limits of its own
			return true
		}
	}
	r := a.chosen
	a.chosen = nil
	run := v.runs[r.Run]
	if run == nil || !run.isDirect || f.isConverted(r) {
		a.handsOver = true
		return true
	}
	a.replica = loads.pickReplicaOf(v, run, a.retries.excluded, a.lastReplica != nil, &a.arrival)
	if a.replica != nil {
		a.lastReplica = a.replica
		return true
	}
	if a.err = rejectIfUnstartable(r); a.err != nil {
		return true
	}
	a.waitsFor = r
	loads.countArrival(&a.arrival, r.Run)
	return false
}

// wait begins to wait, until a try succeeds: as long as the run's rules allow, or for refusedPause while ready replicas refuse
// connections.
func (a *fastAcquirer) wait() relay.Step {
	f, g, hold := a.request, a.request.gateway, a.waitsFor.Rules.Hold
	now := time.Now()
	if a.waitingSince.IsZero() {
		a.waitingSince = now
	}
	a.deadline = a.waitingSince.Add(cmp.Or(time.Duration(hold.Timeout)*time.Second, g.limits.HoldTimeout))
	if a.retries.hasExcluded() {
		a.deadline = now.Add(refusedPause)
	}
	a.waiter.run, a.waiter.bytes = a.waitsFor.Run, f.model.heldBytes()
	waits, err := g.queue.enqueue(&a.waiter, cmp.Or(hold.Requests, g.limits.MaxHeld))
	switch {
	case waits:
		a.isWaiting = true
		f.beginWaiting()
		f.beginHold()
		f.x.WakeAt(f.nextTime())
		return relay.Wait
	case err != nil:
		return f.fail(a.waitError(err))
	}
	return a.endWait()
}

// endWait goes on after a try that succeeded once the request had to wait.
func (a *fastAcquirer) endWait() relay.Step {
	if !a.retries.hasExcluded() {
		a.retries.refusedSince = time.Time{} // replicas were away and are back
	}
	return a.conclude()
}

// wake goes on where the wait is over.
func (a *fastAcquirer) wake() relay.Step {
	isOver, err := a.request.gateway.queue.finish(&a.waiter)
	if !isOver {
		return relay.Wait
	}
	a.isWaiting = false
	if err != nil {
		return a.request.fail(a.waitError(err))
	}
	return a.endWait()
}

// passDeadline ends a wait whose time has passed: all ready replicas that refused are tried again until RefusedTimeout.
func (a *fastAcquirer) passDeadline() relay.Step {
	f := a.request
	a.isWaiting = false
	err := f.gateway.queue.dequeue(&a.waiter, context.DeadlineExceeded)
	switch {
	case err == nil:
		return a.endWait()
	case !errors.Is(err, context.DeadlineExceeded), !a.retries.hasExcluded():
		return f.fail(a.waitError(err))
	case time.Since(a.retries.refusedSince) >= f.gateway.limits.RefusedTimeout:
		return f.fail(f.newReplicaError(relay.ConnectFailed, a.retries.lastErr))
	}
	a.retries.clearExcluded()
	return a.acquire()
}

// waitError translates why a wait ended, for the response.
func (a *fastAcquirer) waitError(err error) error {
	return newWaitError(err, a.waitsFor, a.request.gateway.limits)
}

// stopWaiting ends a wait that nobody wants any more. A replica that was picked meanwhile counts the request until release.
func (a *fastAcquirer) stopWaiting() {
	if a.isWaiting {
		a.isWaiting = false
		_ = a.request.gateway.queue.dequeue(&a.waiter, errDisconnected)
	}
}

// leaveFailed ends the request at its replica, and excludes that.
func (a *fastAcquirer) leaveFailed() {
	a.retries.excluded = append(a.retries.excluded, a.replica.target.Endpoint)
	a.request.gateway.loads.penalize(a.replica, time.Now().Add(penaltyTime))
	a.release()
}

// release ends the request at its replica.
func (a *fastAcquirer) release() {
	if a.replica != nil {
		a.request.gateway.loads.release(a.replica)
		a.replica = nil
	}
}
