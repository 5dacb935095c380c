package gateway

import (
	"context"
	"errors"
	"time"

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
		if x.g.hold.until(ctx, "", func() bool { return x.g.view.Load() != old }) != nil {
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
		case err == nil && len(x.avoid) == 0:
			x.refusedAt = time.Time{} // it had been away, and is back
		case err == nil:
		case x.ctx.Err() != nil:
			return x.ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return x.notNow(err)
		case len(x.avoid) == 0:
			return x.tooLong()
		case time.Since(x.refusedAt) >= x.g.limits.Refused:
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
	v := x.g.view.Load()
	x.view, x.waitsFor, x.err = v, nil, nil
	if v == nil {
		return false
	}
	routes, err := x.admit(v)
	if err != nil || len(routes) == 0 {
		x.err = err
		return true
	}
	x.waitsFor = routes[0]
	x.place = x.g.loads.pick(v, routes, x.avoid, x.last != nil)
	if x.place == nil {
		return false
	}
	x.last = x.place
	return true
}

// wait holds the request until settle says so: as long as the hold allows, or
// for a moment when there are replicas that refuse connections.
func (x *exchange) wait() error {
	if x.patience.IsZero() {
		x.patience = time.Now().Add(x.g.limits.Hold)
	}
	until := x.patience
	if len(x.avoid) > 0 {
		until = time.Now().Add(refusedPause)
	}
	ctx, cancel := context.WithDeadline(x.ctx, until)
	defer cancel()
	var run dstack.RunID
	if x.waitsFor != nil {
		run = x.waitsFor.Run
	}
	return x.g.hold.until(ctx, run, x.settle)
}

// refusedBy leaves a place that takes no connections.
func (x *exchange) refusedBy(err error) {
	if x.refusedAt.IsZero() {
		x.refusedAt = time.Now()
	}
	x.lastErr = err
	x.avoid = append(x.avoid, x.place.target.Address)
	x.g.loads.shun(x.place, time.Now().Add(shunFor))
	x.g.loads.leave(x.place)
	x.place = nil
}

// notNow refuses a request that may not wait.
func (x *exchange) notNow(err error) error {
	if !errors.Is(err, errHoldFull) && !errors.Is(err, errStopping) {
		return err
	}
	return &refusal{retry: 1, words: words{Kind: dstack.Unavailable, Message: err.Error(), Hint: "try again"}}
}

// tooLong refuses a request that has waited long enough.
func (x *exchange) tooLong() error {
	r := &refusal{retry: 5, words: words{Kind: dstack.Unavailable,
		Message: "the gateway has no routes yet", Hint: "try again"}}
	if x.waitsFor != nil {
		r.Message = x.waitsFor.Name + " is not ready"
		if x.waitsFor.State != "" {
			r.Message += ": " + string(x.waitsFor.State)
		}
		r.Hint = "try again, or see what it does: dstack logs " + x.waitsFor.Name
	}
	return r
}
