package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// flushInterval is for bodies of a known length that arrive slowly. Others, all
// streams among them, are flushed at once.
const flushInterval = 5 * time.Millisecond

// forwarder sends a request to its replica, and the response to the client. It
// is the only user of httputil.ReverseProxy, whose transport and buffer pool it
// is.
type forwarder struct {
	request *proxyRequest
}

func (f *forwarder) forward() {
	proxy := httputil.ReverseProxy{
		Rewrite:        f.rewriteRequest,
		Transport:      f,
		ModifyResponse: f.rewriteResponse,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { f.handleError(err) },
		BufferPool:     f,
		FlushInterval:  flushInterval,
		ErrorLog:       f.request.gateway.proxyLog,
	}
	proxy.ServeHTTP(&f.request.response, f.request.r)
}

func (f *forwarder) rewriteRequest(pr *httputil.ProxyRequest) {
	pr.Out.Host = pr.In.Host
	pr.Out.URL.Scheme = "http"
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // unchanged, where Go would normalize it
	f.request.setForwardedHeaders(pr.Out.Header)
}

// RoundTrip sends the request to its replica. Where no connection is
// established, nothing was sent, and it goes to another replica. A replayable
// request does so, too, where its connection breaks.
func (f *forwarder) RoundTrip(out *http.Request) (*http.Response, error) {
	p := f.request
	var body *unsentBody
	if out.Body != nil && out.GetBody == nil {
		body = &unsentBody{body: out.Body}
		if p.body != nil && isGRPC(p.r) {
			body.stream = p.body // httputil.ReverseProxy wraps it, and does not close it
		}
		if f.request.body != nil {
			f.request.body.trailer.announce(out)
		}
	}
	for {
		if p.model != nil && p.model.hasBegun() {
			out.Header.Del("Accept-Encoding") // the header that has been sent names no encoding
		}
		res, err := p.sendToReplica(f.addressRequest(out, body))
		if err == nil {
			return res, nil
		}
		if _, isBroken := errors.AsType[*brokenError](err); isBroken {
			if err := p.acquirer.retryOnOtherReplica(err); err != nil {
				return nil, err
			}
			continue
		}
		if !isDialError(err) || body.isTouched() || p.ctx().Err() != nil {
			return nil, err
		}
		p.logReplica("replica refuses connections", err)
		p.acquirer.markRefused(err)
		if err := p.acquirer.acquire(); err != nil {
			return nil, err
		}
	}
}

// addressRequest returns the request with the address and path that it has at its
// replica.
func (f *forwarder) addressRequest(out *http.Request, body *unsentBody) *http.Request {
	p, target := f.request, f.request.replica()
	ctx := out.Context()
	if p.model != nil {
		// Without httputil.ReverseProxy's hook, which passes on informational
		// responses: that uses the response, and so would end the newlines that
		// keep a client.
		ctx = p.ctx()
	}
	to := out.WithContext(ctx)
	switch {
	case body != nil:
		to.Body = body
	case out.GetBody != nil:
		// The transport must see that the body is in memory: it then sends the
		// header and the body at once.
		to.Body, _ = out.GetBody() // it never fails
	}
	if to.Host == "" { // HTTP/1.0; the URL's host is no name for a replica
		to.Host = target.target.Address
	}
	u := *out.URL
	u.Host = dial.URLHost(target.target.Endpoint)
	switch u.Path = p.pathAt(target.route); {
	case p.destination.Models:
		u.RawPath = ""
	case p.pathPrefix() != "":
		u.RawPath = p.r.URL.EscapedPath()[len(p.pathPrefix()):]
	}
	to.URL = &u
	return to
}

// pathAt is the request's path as a replica of the route sees it.
func (p *proxyRequest) pathAt(r *route.Route) string {
	switch {
	case p.destination.Models && p.model.Root:
		return p.model.Path
	case p.destination.Models:
		return strings.TrimSuffix(r.Prefix, "/") + p.model.Path
	case p.pathPrefix() != "":
		// EscapedPath is valid, and so is its rest.
		path, _ := url.PathUnescape(p.r.URL.EscapedPath()[len(p.pathPrefix()):])
		return path
	default:
		return p.r.URL.Path
	}
}

// unsentBody is a body that may be sent over another connection until its first
// byte is read.
type unsentBody struct {
	body    io.Reader
	stream  *requestBody // of a gRPC call, whose response may end before it; nil: of another request
	touched atomic.Bool
}

func (b *unsentBody) Read(p []byte) (int, error) {
	b.touched.Store(true)
	return b.body.Read(p)
}

// Close does nothing: the proxy closes the body in the end. That of a stream is closed, so that a Read ends, which waits
// for what the client sends next.
func (b *unsentBody) Close() error {
	if b.stream != nil && b.isTouched() {
		return b.stream.ReadCloser.Close()
	}
	return nil
}

func (b *unsentBody) isTouched() bool { return b != nil && b.touched.Load() }

// rewriteResponse prepares a replica's response for the client.
func (f *forwarder) rewriteResponse(res *http.Response) error {
	p := f.request
	p.response.firstAt = time.Time{} // comments were no answer
	p.rewriteResponseHeaders(res.Header)
	contentType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // a malformed one is no type
	f.request.response.isEventStream = contentType == "text/event-stream"
	if p.body != nil && !p.body.isComplete() && p.r.ProtoMajor == 1 && res.StatusCode != http.StatusSwitchingProtocols {
		// The replica responds while the body still arrives. On a connection
		// that is kept, net/http would now consume the rest of the body. (Full
		// duplex, the alternative, may leave the rest of a body to be read as
		// the next request.)
		res.Header.Set("Connection", "close")
	}
	if p.model == nil {
		return nil
	}
	openai.AllowOrigin(res.Header)
	setReplicaRetryAfter(res)
	if p.response.endPadding() {
		if err := p.model.continueJSON(res, contentType); err != nil {
			return err
		}
	}
	p.model.meterResponse(res, contentType, f.request.response.isEventStream)
	if p.model.keepAlive.started {
		return p.model.keepAlive.continueWith(res, f.request.response.isEventStream)
	}
	return nil
}

// handleError sends the error of a replica that does not respond.
func (f *forwarder) handleError(err error) {
	p, last := f.request, f.request.acquirer.lastReplica
	if p.bodyFailed() {
		p.writeError(bodyError())
		return
	}
	if e := p.keyEnded(); e != nil {
		p.writeError(e)
		return
	}
	if p.ctx().Err() != nil || errors.Is(err, errDisconnected) {
		p.abort()
	}
	if e, ok := errors.AsType[*responseError](err); ok {
		p.writeError(e)
		return
	}
	if problem, ok := errors.AsType[*openai.Problem](err); ok {
		p.model.writeProblem(problem)
		return
	}
	failure := responseFailed
	switch {
	case isDialError(err):
		failure = connectFailed
	case isTimeout(err):
		failure = responseLate
	}
	p.writeError(p.gateway.newReplicaError(last, p.id, p.destination.Project, failure, err))
}

// replicaFailure is how a replica did not answer.
type replicaFailure int

const (
	connectFailed  replicaFailure = iota // it accepted no connection
	responseLate                         // it did not begin to respond in time
	responseFailed                       // it broke the connection, or its response is not valid
)

// newReplicaError returns the error of a request whose replica did not answer, and logs it.
func (g *Gateway) newReplicaError(last *readyReplica, id, project string, failure replicaFailure, err error) *responseError {
	name := "replica " + strconv.Itoa(last.target.Num) + " of " + last.route.Name
	g.log.Warn("replica did not answer", "id", id, "run", last.route.Name, "project", project, "replica", last.target.Num, "err", err)
	switch failure {
	case connectFailed:
		return &responseError{retryAfter: 1, details: details{Kind: badGateway, Message: name + " accepts no connections"}}
	case responseLate:
		return &responseError{details: details{Kind: dstack.Timeout,
			Message: name + " did not begin to respond within " + g.limits.ResponseTimeout.String()}}
	default:
		g.loads.penalize(last, time.Now().Add(penaltyTime))
		return &responseError{details: details{Kind: badGateway, Message: name + " did not send a valid response",
			Hint: "see its output: dstack logs " + last.route.Name}}
	}
}
