package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// mostResent is to how many other replicas a request goes whose connections
// break.
const mostResent = 2

// brokenError says that a connection broke before the first byte of an answer,
// to a request that may be sent to another replica.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

// send gives a request to a replica. A model's goes out again, over another
// connection, where a kept one ends before the first byte of an answer: some
// servers, llama.cpp's among them, close a connection right after a stream
// although they say that they keep it. It ends with a new connection at the
// latest; what that one took is never sent again to the same replica.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	switch {
	case x.safe():
		return x.sendSafe(req)
	case !x.means.Models || req.GetBody == nil:
		return x.g.transport.RoundTrip(req)
	}
	for {
		var stale atomic.Bool
		trace := &httptrace.ClientTrace{
			GotConn:              func(c httptrace.GotConnInfo) { stale.Store(c.Reused) },
			GotFirstResponseByte: func() { stale.Store(false) },
		}
		res, err := x.g.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		if err == nil || !stale.Load() || x.ctx.Err() != nil || tooSlow(err) {
			return res, err
		}
		x.g.log.Debug("replica closed a kept connection", "id", x.id, "run", x.place.route.Name, "replica", x.place.target.Num, "err", err)
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.WithContext(req.Context())
		req.Body = body
	}
}

// safe says whether the request may be sent twice by what HTTP says of its
// method. One with a body is not in memory, and is sent once.
func (x *exchange) safe() bool {
	if x.means.Models || x.in != nil {
		return false
	}
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	default:
		return false
	}
}

// sendSafe marks the errors of connections that broke too early.
func (x *exchange) sendSafe(req *http.Request) (*http.Response, error) {
	var answered atomic.Bool
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { answered.Store(true) }}
	res, err := x.g.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	_, refused := errors.AsType[*dialError](err)
	if err == nil || refused || answered.Load() || x.ctx.Err() != nil || tooSlow(err) {
		return res, err
	}
	return nil, &brokenError{err}
}

func tooSlow(err error) bool {
	slow, _ := errors.AsType[net.Error](err)
	return slow != nil && slow.Timeout()
}

// elsewhere takes a safe request from a replica that broke its connection to
// another one that is ready, or returns the error: nobody waits for one.
func (x *exchange) elsewhere(err error) error {
	if x.resent++; x.resent > mostResent {
		return err
	}
	x.g.log.Debug("replica breaks connections", "id", x.id, "run", x.place.route.Name, "replica", x.place.target.Num, "err", err)
	x.avoid = append(x.avoid, x.place.target.Address)
	x.g.loads.penalize(x.place, time.Now().Add(penaltyTime))
	x.g.loads.release(x.place)
	x.place = nil
	if !x.settle() {
		return err
	}
	return x.err
}
