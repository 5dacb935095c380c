package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"

	"dstack/internal/dstack"
)

const (
	// maxResends is to how many other replicas a request is sent whose
	// connections break.
	maxResends = 2
	// refusedPause is how long to wait for a new table while all ready replicas
	// refuse connections, before they are tried again.
	refusedPause = 200 * time.Millisecond
	// penaltyTime is how long other replicas are preferred to one that refused
	// or broke a connection.
	penaltyTime = time.Second
)

// retries is what a request knows of the replicas that failed it.
type retries struct {
	excluded     []dstack.Endpoint // not tried at the moment
	refusedSince time.Time         // when the first replica refused a connection; zero: none
	lastErr      error             // of the latest that did
	resends      int               // because a connection broke
}

func (r *retries) hasExcluded() bool { return len(r.excluded) > 0 }
func (r *retries) clearExcluded()    { r.excluded = r.excluded[:0] }

// markRefused leaves a replica that accepts no connection, for another one.
func (a *replicaAcquirer) markRefused(err error) {
	if a.retries.refusedSince.IsZero() {
		a.retries.refusedSince = time.Now()
	}
	a.retries.lastErr = err
	a.leaveFailed()
}

// leaveFailed ends the request at its replica, and excludes that.
func (a *replicaAcquirer) leaveFailed() {
	a.retries.excluded = append(a.retries.excluded, a.replica.target.Endpoint)
	a.request.gateway.loads.penalize(a.replica, time.Now().Add(penaltyTime))
	a.release()
}

// retryOnOtherReplica moves a request whose connection broke to another replica
// that is ready. Without one it returns err at once.
func (a *replicaAcquirer) retryOnOtherReplica(err error) error {
	if a.retries.resends++; a.retries.resends > maxResends {
		return err
	}
	a.request.logReplica("replica breaks connections", err)
	a.leaveFailed()
	if !a.tryAcquire() {
		return err
	}
	return a.err
}

// logReplica logs what went wrong between the gateway and the request's replica.
func (p *proxyRequest) logReplica(message string, err error) {
	r := p.replica()
	p.gateway.log.Debug(message, "id", p.id, "run", r.route.Name, "replica", r.target.Num, "err", err)
}

// brokenError says that a connection broke before the first byte of the
// response, to a request that may be sent to another replica.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

// sendToReplica sends a request to a replica. A call to a model is sent again, over
// another connection, where a kept connection ends before the first byte of the
// response: some servers, llama.cpp's among them, close a connection right
// after a stream although they announce that they keep it. This ends with a new
// connection at the latest; what was sent over that is never sent again to the
// same replica.
func (p *proxyRequest) sendToReplica(req *http.Request) (*http.Response, error) {
	transport := p.replicaTransport()
	switch {
	case p.isReplayable():
		return p.sendReplayable(req)
	case !p.destination.Models || req.GetBody == nil:
		return transport.RoundTrip(req)
	}
	for {
		var isStale atomic.Bool
		trace := &httptrace.ClientTrace{
			GotConn:              func(c httptrace.GotConnInfo) { isStale.Store(c.Reused) },
			GotFirstResponseByte: func() { isStale.Store(false) },
			Got1xxResponse:       dropInformational,
		}
		res, err := transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		if err == nil || !isStale.Load() || p.ctx().Err() != nil || isTimeout(err) {
			return res, err
		}
		p.logReplica("replica closed a kept connection", err)
		p.replica().counts.countRetry()
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.WithContext(req.Context())
		req.Body = body
	}
}

// dropInformational receives the informational responses to a model call; see
// addressRequest.
func dropInformational(int, textproto.MIMEHeader) error { return nil }

// isReplayable reports whether HTTP allows to send the request twice. A request
// with a body is not in memory, and is sent once.
func (p *proxyRequest) isReplayable() bool {
	return !p.destination.Models && p.body == nil && isRepeatable([]byte(p.r.Method))
}

// sendReplayable marks the errors of connections that broke before the response.
func (p *proxyRequest) sendReplayable(req *http.Request) (*http.Response, error) {
	var responded atomic.Bool
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { responded.Store(true) }}
	res, err := p.gateway.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil || isDialError(err) || responded.Load() || p.ctx().Err() != nil || isTimeout(err) {
		return res, err
	}
	return nil, &brokenError{err}
}

func isTimeout(err error) bool {
	timeout, _ := errors.AsType[net.Error](err)
	return timeout != nil && timeout.Timeout()
}
