package gateway

import (
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

// exchange is one request on its way.
type exchange struct {
	g     *Gateway
	w     *answer
	r     *http.Request
	in    *requestBody // the body; nil without one
	ctx   context.Context
	id    string
	began time.Time
	means route.Destination
	own   bool // the Authorization header is the platform's, not the service's

	call  openai.Call // with means.Models
	model string      // with a forwarded call, once its body is read
	body  []byte      // that body, as far as it is read
	bytes int64       // of room taken

	reader   reader    // of that body
	allowed  int64     // bytes that it may read
	paceFrom time.Time // since when it must keep a pace; zero: it need not

	one       [1]*route.Route
	view      *view
	place     *readyReplica // where it goes; it is counted there
	last      *readyReplica // where it went, when it goes nowhere now
	err       error         // why it goes nowhere
	waitsFor  *route.Route
	passed    dstack.RunID // the run that its caller does not send too many
	arrival   arrival      // where it was counted
	waits     time.Time    // since when it waits for a replica
	commentAt time.Time    // when it is told of that next; zero: never
	avoid     []string     // addresses that refused a connection
	refusedAt time.Time    // when the first of them did
	resent    int          // to how many others it went because a connection broke
	lastErr   error        // what the last of them said

	silent  bool   // it asks for no stream
	opened  bool   // a stream of events was begun before there was a replica
	streams bool   // the replica's answer is a stream of events
	timing  timing // of a call to a model
}

// ServeHTTP serves one request, in this order: request id, access log,
// recover, identify, authorize, limit, count, hold, pick, forward.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{g: g, w: newAnswer(w, g.limits.StallTimeout), r: r, ctx: r.Context(), id: requestID(r), began: time.Now()}
	if r.Body != nil && r.Body != http.NoBody {
		x.in = newRequestBody(r.Body, x.w.control, g.limits.StallTimeout)
		r = r.WithContext(x.ctx) // a copy: what we were given stays as it is
		r.Body, x.r = x.in, r
	}
	defer x.end()
	defer x.survive()
	x.means, _ = g.identify(r)
	x.serve()
}

// serve is the request's way, once it has a name and a guard around it.
func (x *exchange) serve() {
	if x.r.Method == http.MethodConnect || x.r.Method == http.MethodTrace {
		x.refuse(&refusal{words: words{Kind: badMethod, Message: "the gateway does not take " + x.r.Method}})
		return
	}
	if strings.ContainsAny(x.r.Host, `"<>`) { // a request line with a whole URL in it may name such a host
		x.refuse(&refusal{words: words{Kind: dstack.Invalid, Message: "the request names no proper host"}})
		return
	}
	if x.means.IsEmpty() {
		x.fail(noRun(x.means))
		return
	}
	if x.means.Models {
		x.serveModels()
		return
	}
	if x.base() != "" && x.r.URL.EscapedPath() == x.base() {
		x.toSlash()
		return
	}
	if err := x.obtain(); err != nil {
		x.fail(err)
		return
	}
	x.forward()
}

// toSlash sends a client to the service's root, so that relative links work.
func (x *exchange) toSlash() {
	to := x.base() + "/"
	if x.r.URL.RawQuery != "" {
		to += "?" + x.r.URL.RawQuery
	}
	x.w.Header().Set("Location", to)
	x.w.Header().Set("X-Request-Id", x.id)
	x.w.WriteHeader(http.StatusTemporaryRedirect)
}

// base is what the path of a service begins with, empty when the host named
// it.
func (x *exchange) base() string {
	if x.means.Models {
		return ""
	}
	return x.means.Base
}

// fail answers with an error from obtain.
func (x *exchange) fail(err error) {
	if (x.ctx.Err() != nil || errors.Is(err, errLeft)) && !x.broken() {
		x.gone()
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		x.refuse(r)
		return
	}
	x.g.log.Error("request failed", "id", x.id, "err", err)
	x.refuse(internal())
}

func internal() *refusal {
	return &refusal{words: words{Kind: dstack.Internal, Message: "the gateway failed", Hint: "see the server's log for this request id"}}
}

// survive turns a panic into an answer and closes the connection. Aborts, the
// proxy's way to cut an answer short, pass.
func (x *exchange) survive() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.g.log.Error("panic while serving", "id", x.id, "panic", p, "stack", string(debug.Stack()))
	if x.w.sent {
		panic(http.ErrAbortHandler)
	}
	clear(x.w.Header())
	x.w.Header().Set("Connection", "close")
	x.refuse(internal())
}

// end gives back all that the exchange holds, and tells the log. Bodies and
// queries are private.
func (x *exchange) end() {
	if x.place != nil {
		x.g.loads.release(x.place)
	}
	if x.in != nil {
		x.in.abandon()
	}
	x.w.end()
	x.g.reading.end(&x.reader)
	if x.bytes > 0 {
		x.giveRoom(x.bytes)
	}
	if x.last == nil {
		x.g.buffers.recycle(x.body)
	}
	if x.call.Operation == openai.Forward && x.last != nil {
		x.g.numbers.count(x.last.route, x.w.status, x.began, &x.timing)
	}
	if !x.g.log.Enabled(x.ctx, slog.LevelDebug) {
		return
	}
	x.g.log.LogAttrs(x.ctx, slog.LevelDebug, "request",
		slog.String("id", x.id), slog.String("method", x.r.Method), slog.String("host", x.r.Host),
		slog.String("path", x.r.URL.Path), slog.Int("status", x.w.status), slog.Int64("bytes", x.w.bytes),
		slog.Duration("took", time.Since(x.began)), slog.String("project", x.means.Project), slog.String("run", x.means.Run))
}

// requestID keeps a client's own if it is a decent one.
func requestID(r *http.Request) string {
	given := r.Header["X-Request-Id"]
	if len(given) != 1 || given[0] == "" || len(given[0]) > 128 {
		return rand.Text()
	}
	for _, c := range []byte(given[0]) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return rand.Text()
		}
	}
	return given[0]
}
