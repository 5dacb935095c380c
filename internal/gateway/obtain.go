package gateway

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// newsWait is how long a caller who may know waits for a newer table before
// it is told that something does not exist: the API answers a submission a
// moment before the table has it.
const newsWait = 250 * time.Millisecond

// obtain brings the request to a place, waiting for one while none is ready,
// or returns a refusal. A request that is not for a replica gets no place,
// and no error. Without the client, its context's error comes back.
func (x *exchange) obtain() error {
	err := x.seek()
	if !missing(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(x.ctx, newsWait)
	defer cancel()
	for missing(err) {
		old := x.view
		if x.g.hold.wait(ctx, "", func() bool { return x.g.loads.view.Load() != old }) != nil {
			return err
		}
		err = x.seek()
	}
	return err
}

// missing says that what was asked for is in no table yet. Those who may not
// know get another refusal, and no wait that would tell them.
func missing(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.Kind == dstack.NotFound
}

// seek is obtain by the tables that there are.
func (x *exchange) seek() error {
	for !x.settle() {
		err := x.wait()
		switch {
		case err == nil && x.view == nil: // there are routes now
			continue
		case err == nil && len(x.avoid) == 0:
			x.refusedAt = time.Time{} // it had been away, and is back
		case err == nil:
		case x.ctx.Err() != nil:
			return x.ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return x.notNow(err)
		case len(x.avoid) == 0:
			return x.tooLong()
		case time.Since(x.refusedAt) >= x.g.limits.RefusedTimeout:
			return x.lastErr
		default:
			x.avoid = x.avoid[:0] // ask them all again
			continue
		}
		return x.err
	}
	return x.err
}

// settle looks at the present table, and returns true once the request's fate
// is known: a place, an error, or no need of a place. It runs under the lock
// of hold, and waits for nothing.
func (x *exchange) settle() bool {
	for {
		v := x.g.loads.view.Load()
		if x.settleBy(v) {
			return true
		}
		if x.g.loads.view.Load() == v { // else that one may have a place
			return false
		}
	}
}

func (x *exchange) settleBy(v *view) bool {
	x.view, x.waitsFor, x.err = v, nil, nil
	if v == nil {
		return false
	}
	routes, err := x.admit(v)
	if err != nil || len(routes) == 0 {
		x.err = err
		return true
	}
	best := x.g.loads.nextRoute(v, routes, x.avoid)
	if best == nil {
		best = lasting(routes)
	}
	if x.err = x.limited(best); x.err != nil {
		return true
	}
	x.one[0] = best
	x.place = x.g.loads.pick(v, x.one[:], x.avoid, x.last != nil)
	if x.place != nil {
		x.last = x.place
		x.g.loads.countArrival(&x.arrival, x.place.route.Run)
		return true
	}
	if x.err = inVain(best); x.err != nil {
		return true
	}
	x.waitsFor = best
	x.g.loads.countArrival(&x.arrival, best.Run)
	return false
}

// inVain refuses to let a request wait for a run that gets no replica.
func inVain(r *route.Route) error {
	switch {
	case r.IsStopping:
		return &refusal{words: words{Kind: dstack.Unavailable, Message: r.Name + " is being stopped",
			Hint: "start it again: dstack apply"}}
	case r.NeverServes:
		return &refusal{words: words{Kind: dstack.Unavailable, Message: notReady(r),
			Hint: "change its configuration: dstack apply"}}
	default:
		return nil
	}
}

// lasting is the route that a request waits for while none of them is ready:
// one that starts; else one that the request wakes.
func lasting(routes []*route.Route) *route.Route {
	return slices.MinFunc(routes, func(a, b *route.Route) int { return cmp.Compare(hopeless(a), hopeless(b)) })
}

// hopeless is how far a run is from a replica.
func hopeless(r *route.Route) int {
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

// wait holds the request until settle says so: as long as the hold allows, or
// for a moment when there are replicas that refuse connections. Without any
// table it waits for one.
func (x *exchange) wait() error {
	if x.waits.IsZero() {
		x.waits = time.Now()
	}
	if x.commentAt.IsZero() && x.waitsFor != nil && x.call.Streams() && !x.silent {
		x.commentAt = time.Now().Add(x.g.limits.KeepAlive)
	}
	w, most, until := &waiter{settle: x.settle, bytes: x.bytes}, crowd{x.g.limits.MaxHeld, x.g.limits.HeldBytes}, x.g.limits.HoldTimeout
	if x.view == nil {
		w.settle = func() bool { return x.g.loads.view.Load() != nil }
	}
	if x.waitsFor != nil {
		hold := x.waitsFor.Rules.Hold
		w.run = x.waitsFor.Run
		most.requests = cmp.Or(hold.Requests, most.requests)
		until = cmp.Or(time.Duration(hold.Timeout)*time.Second, until)
	}
	deadline := x.waits.Add(until)
	if len(x.avoid) > 0 {
		deadline = time.Now().Add(refusedPause)
	}
	ctx, cancel := context.WithDeadline(x.ctx, deadline)
	defer cancel()
	waits, err := x.g.hold.enqueue(w, most)
	if !waits {
		return err
	}
	if w.run != "" {
		x.g.reading.end(&x.reader) // its body counts there now
	}
	return x.g.hold.dequeue(w, x.await(ctx, w))
}

// await returns when the wait ends, nil, or before, because of an error or of
// a client that has left.
func (x *exchange) await(ctx context.Context, w *waiter) error {
	var look <-chan time.Time
	peer := x.peer()
	if peer != nil {
		every := time.NewTicker(peerEvery)
		defer every.Stop()
		look = every.C
	}
	for {
		var comment <-chan time.Time
		if !x.commentAt.IsZero() {
			comment = time.After(time.Until(x.commentAt))
		}
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look:
			if hungUp(peer) {
				return errLeft
			}
		case <-comment:
			if err := x.comment(); err != nil {
				return err
			}
		}
	}
}

// refusedBy leaves a place that takes no connections.
func (x *exchange) refusedBy(err error) {
	if x.refusedAt.IsZero() {
		x.refusedAt = time.Now()
	}
	x.lastErr = err
	x.avoid = append(x.avoid, x.place.target.Address)
	x.g.loads.penalize(x.place, time.Now().Add(penaltyTime))
	x.g.loads.release(x.place)
	x.place = nil
}

// notNow refuses a request that may not wait.
func (x *exchange) notNow(err error) error {
	message := err.Error()
	switch {
	case errors.Is(err, errStopping):
	case errors.Is(err, errQueueFull) && x.waitsFor != nil:
		message = x.waitsFor.Name + " is not ready, and as many requests wait for it as may"
	case errors.Is(err, errQueueBytes):
		message = x.waitsFor.Name + " is not ready, and the requests that wait for it have as many bytes as may: " +
			strconv.FormatInt(x.g.limits.HeldBytes>>20, 10) + " MiB"
	case errors.Is(err, errQueueFull):
	default:
		return err
	}
	return &refusal{retry: 1, words: words{Kind: dstack.Unavailable, Message: message, Hint: "try again"}}
}

// tooLong refuses a request that has waited long enough.
func (x *exchange) tooLong() error {
	r := &refusal{retry: 5, words: words{Kind: dstack.Unavailable,
		Message: "the gateway has no routes yet", Hint: "try again"}}
	if x.waitsFor != nil {
		r.Message = notReady(x.waitsFor)
		r.Hint = "try again, or see what it does: dstack logs " + x.waitsFor.Name
	}
	return r
}

// notReady says why a run has no replica.
func notReady(r *route.Route) string {
	if r.State == "" {
		return r.Name + " is not ready"
	}
	return r.Name + " is not ready: " + string(r.State)
}
