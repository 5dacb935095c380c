package gateway

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

const (
	// flushEvery is for bodies of a known length that come slowly. Others, all
	// streams among them, are flushed at once.
	flushEvery = 5 * time.Millisecond
	// idleReplica is how long a connection to a replica is kept. It is less
	// than what common servers wait before they close theirs (2s and 5s), so
	// that a request hardly ever meets a closing one.
	idleReplica = 1500 * time.Millisecond
	// refusedPause is how long to wait for a new table, or else ask again,
	// when all ready replicas refuse connections.
	refusedPause = 200 * time.Millisecond
	// penaltyTime is how long others are preferred to a replica that refused.
	penaltyTime = time.Second
	// statusGone is logged for clients that left; nobody receives it.
	statusGone = 499
)

// dialError says that no connection came about, so nothing was sent.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

func newTransport(l Limits) *http.Transport {
	dialer := &net.Dialer{Timeout: l.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4,
	}}
	return &http.Transport{
		Proxy: nil, // what the environment names is not between us and replicas
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        idleReplica,
		DisableCompression:     true,
		ResponseHeaderTimeout:  l.ResponseTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// forward brings the request to its place and the answer back, both as they
// come. This is the one seam to the proxy underneath.
func (x *exchange) forward() {
	proxy := httputil.ReverseProxy{
		Rewrite:        x.rewrite,
		Transport:      x,
		ModifyResponse: x.fit,
		ErrorHandler:   x.failed,
		BufferPool:     x,
		FlushInterval:  flushEvery,
		ErrorLog:       x.g.errors,
	}
	proxy.ServeHTTP(x.w, x.r)
}

func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	pr.Out.Host = pr.In.Host
	pr.Out.URL.Scheme = "http"
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // not as Go would write it
	x.forwardHeaders(pr.Out.Header)
}

// RoundTrip sends the request to its place. Where no connection comes about
// it goes to another one: nothing of it was sent. A safe one does, too, where
// its connection breaks.
func (x *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	var body *kept
	if out.Body != nil && out.GetBody == nil {
		body = &kept{body: out.Body}
	}
	for {
		res, err := x.send(x.aimed(out, body))
		if err == nil {
			return res, nil
		}
		if _, broken := errors.AsType[*brokenError](err); broken {
			if err := x.elsewhere(err); err != nil {
				return nil, err
			}
			continue
		}
		if _, refused := errors.AsType[*dialError](err); !refused || body.touched() || x.ctx.Err() != nil {
			return nil, err
		}
		x.g.log.Debug("replica refuses connections", "id", x.id, "run", x.place.route.Name, "replica", x.place.target.Num, "err", err)
		x.refusedBy(err)
		if err := x.obtain(); err != nil {
			return nil, err
		}
	}
}

// aimed is the request with the address and path that it has at its place.
func (x *exchange) aimed(out *http.Request, body *kept) *http.Request {
	to := out.WithContext(out.Context())
	switch {
	case body != nil:
		to.Body = body
	case out.GetBody != nil:
		// In memory, and to be seen as such by the transport: it sends the
		// header and the body at once.
		to.Body, _ = out.GetBody() // it never fails
	}
	u := *out.URL
	u.Host = x.place.target.Address
	switch u.Path = x.targetPath(x.place.route); {
	case x.means.Models:
		u.RawPath = ""
	case x.base() != "":
		u.RawPath = x.r.URL.EscapedPath()[len(x.base()):]
	}
	to.URL = &u
	return to
}

// targetPath is the request's path as a replica sees it.
func (x *exchange) targetPath(r *route.Route) string {
	switch {
	case x.means.Models && x.call.Root:
		return x.call.Path
	case x.means.Models:
		return strings.TrimSuffix(r.Prefix, "/") + x.call.Path
	case x.base() != "":
		// EscapedPath is valid, and so is its rest.
		path, _ := url.PathUnescape(x.r.URL.EscapedPath()[len(x.base()):])
		return path
	default:
		return x.r.URL.Path
	}
}

// kept is a body that outlives a connection that did not come about.
type kept struct {
	body io.Reader
	read atomic.Bool
}

func (k *kept) Read(p []byte) (int, error) {
	k.read.Store(true)
	return k.body.Read(p)
}

// Close does nothing: the proxy closes the body once the exchange is over.
func (k *kept) Close() error { return nil }

func (k *kept) touched() bool { return k != nil && k.read.Load() }

// fit makes a replica's answer fit to be sent from here.
func (x *exchange) fit(res *http.Response) error {
	x.answerHeaders(res.Header)
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // wrong: it is of no kind
	x.streams = kind == "text/event-stream"
	if x.in != nil && !x.in.isComplete() && x.r.ProtoMajor == 1 && res.StatusCode != http.StatusSwitchingProtocols {
		// The replica answers while the body still comes. On a connection
		// that it means to keep, the server would now take the rest of the
		// body for itself. (Full duplex, the other way out, can leave the
		// rest of a body to be read as the next request.)
		res.Header.Set("Connection", "close")
	}
	if x.means.Models {
		openai.AllowOrigin(res.Header)
		x.meter(res, kind)
	}
	if x.opened {
		return x.fitOpened(res)
	}
	return nil
}

// failed answers for a replica that does not.
func (x *exchange) failed(_ http.ResponseWriter, _ *http.Request, err error) {
	if x.broken() {
		x.refuse(badBody())
		return
	}
	if x.ctx.Err() != nil || errors.Is(err, errLeft) {
		x.gone()
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		x.refuse(r)
		return
	}
	if _, ok := errors.AsType[*openai.Problem](err); ok {
		_ = x.problem(err) // it is one
		return
	}
	which := "replica " + strconv.Itoa(x.last.target.Num) + " of " + x.last.route.Name
	x.g.log.Warn("replica did not answer", "id", x.id, "run", x.last.route.Name,
		"project", x.means.Project, "replica", x.last.target.Num, "err", err)
	_, refused := errors.AsType[*dialError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case refused:
		x.refuse(&refusal{retry: 1, words: words{Kind: badGateway, Message: which + " accepts no connections"}})
	case timeout != nil && timeout.Timeout():
		x.refuse(&refusal{words: words{Kind: dstack.Timeout,
			Message: which + " did not begin to answer within " + x.g.limits.ResponseTimeout.String()}})
	default:
		x.g.loads.penalize(x.last, time.Now().Add(penaltyTime))
		x.refuse(&refusal{words: words{Kind: badGateway, Message: which + " gave no proper answer",
			Hint: "see its output: dstack logs " + x.last.route.Name}})
	}
}

// broken says whether the client's body could not be read. It may be gone or
// not; the answer is for one that is not.
func (x *exchange) broken() bool { return x.in != nil && x.in.hasFailed() }

// gone ends the exchange without an answer: nobody is there to take one.
func (x *exchange) gone() {
	if !x.w.sent {
		x.w.status = statusGone
	}
	panic(http.ErrAbortHandler)
}
