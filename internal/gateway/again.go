package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// send gives a request to a replica. A model's goes out again, over another
// connection, where a kept one ends before the first byte of an answer: some
// servers, llama.cpp's among them, close a connection right after a stream
// although they say that they keep it. It ends with a new connection at the
// latest; what that one took is never sent again.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	if !x.means.Models || req.GetBody == nil {
		return x.g.transport.RoundTrip(req)
	}
	for {
		var stale atomic.Bool
		trace := &httptrace.ClientTrace{
			GotConn:              func(c httptrace.GotConnInfo) { stale.Store(c.Reused) },
			GotFirstResponseByte: func() { stale.Store(false) },
		}
		res, err := x.g.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		slow, _ := errors.AsType[net.Error](err)
		if err == nil || !stale.Load() || x.ctx.Err() != nil || slow != nil && slow.Timeout() {
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
