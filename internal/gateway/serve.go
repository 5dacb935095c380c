package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// proxyRequest is one request, from its arrival until its response is sent.
type proxyRequest struct {
	gateway     *Gateway
	r           *http.Request
	id          string
	client      route.Client
	startedAt   time.Time
	destination route.Destination
	response    responseWriter
	body        *requestBody    // nil without one
	acquirer    replicaAcquirer // access, limits, and the replica
	model       *modelCall      // nil unless destination.Models
	forwarder   forwarder
	keyUse      *keyUse       // nil: no key for callers was used
	begun       fastKeepAlive // of a response that the fast path has begun
}

var _ http.Handler = (*Gateway)(nil)

// ServeHTTP serves one request, see serve. An error or a panic becomes a
// response; in the end the request releases what it holds and is logged.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := g.newProxyRequest(w, r)
	defer p.finish()
	defer p.recoverPanic()
	if err := p.serve(); err != nil {
		p.fail(err)
	}
}

// serve takes a request through its five steps: which run or models it is for,
// whether its caller may use them, whether its caller sends too many, a ready
// replica, and the replica's response. A call to a model is prepared in
// between, because the body names the model. While the request waits for a
// replica, each new route table repeats the second and third step.
func (p *proxyRequest) serve() error {
	if err := p.checkAddress(); err != nil {
		return err
	}
	if p.redirectToRoot() || p.answerPreflight() {
		return nil
	}
	if served, err := p.serveGatewayPath(); served || err != nil {
		return err
	}
	if answered, err := p.answerHealth(); answered || err != nil {
		return err
	}
	if err := p.acquirer.authorize(); err != nil {
		return err
	}
	if err := p.beginKey(); err != nil {
		return err
	}
	if p.model != nil {
		if answered, err := p.model.prepare(); answered || err != nil {
			p.countKey(err == nil)
			return err
		}
	}
	p.countKey(true)
	if err := p.acquirer.limit(); err != nil {
		return err
	}
	if err := p.acquirer.acquire(); err != nil {
		return err
	}
	return p.forward()
}

func (g *Gateway) newProxyRequest(w http.ResponseWriter, r *http.Request) *proxyRequest {
	destination, _ := g.identify(r)
	p := &proxyRequest{
		gateway: g, r: r, id: requestID(r), client: g.clientOf(r, destination), destination: destination, startedAt: time.Now(),
		response: newResponseWriter(w, g.limits.StallTimeout, r.ProtoMajor == 2),
	}
	p.acquirer.request, p.forwarder.request = p, p
	if counted := takeCounted(r.Context()); counted != nil {
		p.continueCounted(counted)
	}
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 { // over HTTP/2 there is a Body always
		p.body = newRequestBody(r.Body, p.response.control, g.bodyStall(r), r.ProtoMajor == 2)
		p.body.trailer.received = r
		p.r = r.WithContext(r.Context()) // a copy: a handler must not modify its request
		p.r.Body = p.body
	}
	return p
}

// ctx ends when the client disconnects or the server stops.
func (p *proxyRequest) ctx() context.Context { return p.r.Context() }

// checkAddress refuses requests whose address names nothing, and methods that are not for services.
func (p *proxyRequest) checkAddress() error {
	if p.destination.Models {
		p.model = newModelCall(p)
		p.model.continueBegun()
	}
	switch {
	case p.r.Method == http.MethodConnect || p.r.Method == http.MethodTrace:
		return &responseError{details: details{Kind: badMethod, Message: "the method " + p.r.Method + " is not allowed"}}
	case strings.ContainsAny(p.r.Host, " \"#/<>?@\\^`{|}"): // possible over HTTP/2, and where the request line has a whole URL
		return &responseError{details: details{Kind: dstack.Invalid, Message: "the Host header is invalid"}}
	case !isWord(p.r.Method), strings.Contains(p.r.URL.RawQuery, " "): // possible over HTTP/2: a replica would read another request line
		return &responseError{details: details{Kind: dstack.Invalid, Message: "the method or the path has a byte in it that it must not have"}}
	case p.destination.IsEmpty():
		return runNotFound(p.destination)
	}
	return nil
}

// isWord reports whether a method has no byte that ends it in a request line.
func isWord(method string) bool {
	return !strings.ContainsFunc(method, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", c) })
}

// redirectToRoot redirects a client from a service's path to the same with a
// slash, so that relative links work.
func (p *proxyRequest) redirectToRoot() bool {
	if p.pathPrefix() == "" || p.r.URL.EscapedPath() != p.pathPrefix() {
		return false
	}
	to := p.pathPrefix() + "/"
	if p.r.URL.RawQuery != "" {
		to += "?" + p.r.URL.RawQuery
	}
	p.response.Header().Set("Location", to)
	p.response.Header().Set("X-Request-Id", p.id)
	p.response.WriteHeader(http.StatusTemporaryRedirect)
	return true
}

// answerPreflight answers a browser that asks whether a page of another origin
// may call the model endpoint. Such a request has no token.
func (p *proxyRequest) answerPreflight() bool {
	if !p.destination.Models || !openai.IsPreflight(p.r) {
		return false
	}
	p.response.Header().Set("X-Request-Id", p.id)
	openai.WritePreflight(&p.response, p.r)
	return true
}

// pathPrefix is what the path begins with before the path that a service sees.
// It is empty where the host names the service.
func (p *proxyRequest) pathPrefix() string {
	if p.destination.Models {
		return ""
	}
	return p.destination.Base
}

// forward sends the request to its replica, and the response to the client.
func (p *proxyRequest) forward() error {
	if p.model != nil {
		p.model.body.releaseReading()
		if p.replica().route.Format == "tgi" {
			return newTGICall(p).serveCall()
		}
		p.gateway.traits.warn(p)
	}
	if p.isPlain() {
		(&plainForward{forwarder: &p.forwarder}).forward()
		return nil
	}
	p.forwarder.forward()
	return nil
}

// replica is the ready replica that counts the request.
func (p *proxyRequest) replica() *readyReplica { return p.acquirer.replica }

// fail sends an error, unless the client has left.
func (p *proxyRequest) fail(err error) {
	if e := p.keyEnded(); e != nil {
		p.writeError(e)
		return
	}
	if (p.ctx().Err() != nil || errors.Is(err, errDisconnected)) && !p.bodyFailed() {
		p.abort()
	}
	if e, ok := errors.AsType[*responseError](err); ok {
		p.writeError(e)
		return
	}
	p.gateway.log.Error("request failed", "id", p.id, "err", err)
	p.writeError(internalError())
}

// bodyFailed reports that the client's body could not be read. The client may
// still be connected, and then gets a response.
func (p *proxyRequest) bodyFailed() bool { return p.body != nil && p.body.hasFailed() }

// abort ends the request without a response, because the client has left.
func (p *proxyRequest) abort() {
	p.response.endPadding()
	if !p.response.sent {
		p.response.status = statusClientClosed
	}
	panic(http.ErrAbortHandler)
}

// statusClientClosed is logged for clients that disconnected. It is never sent.
const statusClientClosed = 499

// recoverPanic turns a panic into a response and closes the connection.
// http.ErrAbortHandler, which cuts a response short, passes.
func (p *proxyRequest) recoverPanic() {
	value := recover()
	if value == nil {
		return
	}
	if err, ok := value.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(value)
	}
	p.response.endPadding()
	p.gateway.log.Error("panic while serving", "id", p.id, "panic", value, "stack", string(debug.Stack()))
	if p.response.sent {
		panic(http.ErrAbortHandler)
	}
	clear(p.response.Header())
	p.response.Header().Set("Connection", "close")
	p.writeError(internalError())
}

// finish releases all that the request holds, and logs it without its body and
// query, which are private.
func (p *proxyRequest) finish() {
	last := p.acquirer.lastReplica
	p.acquirer.release()
	p.finishKey()
	if p.body != nil {
		p.body.abandon()
	}
	p.response.finish()
	if p.model != nil {
		p.model.body.release(last != nil)
		if p.model.Operation == openai.Forward && last != nil {
			p.gateway.metrics.recordRequest(last.route, p.response.status, p.startedAt, &p.model.timing)
		}
	}
	p.recordCounts()
	if !p.gateway.log.Enabled(p.ctx(), slog.LevelDebug) {
		return
	}
	p.gateway.log.LogAttrs(p.ctx(), slog.LevelDebug, "request",
		slog.String("id", p.id), slog.String("from", p.client.AddressText()),
		slog.String("method", p.r.Method), slog.String("host", p.r.Host),
		slog.String("path", p.r.URL.Path), slog.Int("status", p.response.status), slog.Int64("bytes", p.response.bytes),
		slog.Duration("took", time.Since(p.startedAt)),
		slog.String("project", p.destination.Project), slog.String("run", p.destination.Run))
}

// recordCounts counts the request at its run for Prometheus: the run of its replica, else the run that it is for.
func (p *proxyRequest) recordCounts() {
	if last := p.acquirer.lastReplica; last != nil {
		end := time.Now()
		first := end
		for _, at := range []time.Time{p.response.headAt, p.response.firstAt} {
			if !at.IsZero() {
				first = at
			}
		}
		last.counts.countResponse(p.response.status, first.Sub(p.startedAt), end.Sub(p.startedAt))
		return
	}
	v := p.gateway.loads.view.Load()
	if v == nil {
		return
	}
	r := cmp.Or(p.acquirer.waitsFor, p.acquirer.chosen)
	if r == nil && !p.destination.Models {
		r = v.Run(p.destination)
	}
	if r == nil { // no run, or no model yet: names that callers make up are not counted
		return
	}
	if counts := p.gateway.loads.countsOf(r.Run); counts != nil {
		counts.countAnswer(p.response.status)
	}
}

// requestID returns the client's own ID if it is well-formed, else a new one.
func requestID(r *http.Request) string {
	given := r.Header["X-Request-Id"]
	if len(given) != 1 || !isValidID(given[0]) {
		return rand.Text()
	}
	return given[0]
}
