// Package gateway is the data plane: it forwards requests for services and
// models to ready replicas. serve.go shows the life of a request.
package gateway

import (
	"cmp"
	"context"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// ControlPlane is what a gateway needs of the server. The server implements it
// where both share a process. Both methods may be called at once, and again
// after an error.
type ControlPlane interface {
	// Table returns the complete route table once its version differs from
	// since, which is 0 for none. It blocks until then or until ctx ends, and
	// may return the same version again after a while.
	Table(ctx context.Context, since uint64) (route.Table, error)

	// Report stores what the gateway counts, in place of its previous report, and
	// answers with the gateway's part of the limits that all gateways count
	// together. It is called every second, and at once when a run without a replica
	// gets its first request, when a replica that left the table has nothing in
	// flight any more, and when much more of a limit is asked for.
	Report(ctx context.Context, report dstack.LoadReport) (dstack.LoadAnswer, error)
}

// Options configure a gateway. Control is required.
type Options struct {
	Control ControlPlane
	Site    route.Site     // where services are published; default: below localhost, for the project main
	Proxies []netip.Prefix // the trusted proxies in front of the addresses of the server itself
	// GatewayProxies are the trusted proxies in front of gateways of projects that have none of their own.
	GatewayProxies []netip.Prefix
	Name           string       // tells this gateway from others in its reports; default: gateway
	Dialer         *dial.Dialer // connects to replicas; nil: a new one
	// SessionKey seals the cookies of browsers, 32 bytes; nil: a random key, with
	// which they end when the gateway does.
	SessionKey []byte
	Limits     Limits
	Log        *slog.Logger // nil: slog.Default
}

// Limits are bounds. Zero stands for the default.
type Limits struct {
	MaxHeld     int           // requests that wait for one run, unless its rules say; 1000
	HoldTimeout time.Duration // how long a request waits for a replica, unless its run's rules say; 60s
	KeepAlive   time.Duration // between two comments in a stream that waits for a replica; 5s
	// LongKeepAlive is the time between two comments after LongWait: 30s after 2m.
	LongWait, LongKeepAlive time.Duration
	// NewlineAfter is how long a call without a stream is served before newlines
	// keep its client connected, one each NewlineInterval: 240s and 30s.
	NewlineAfter, NewlineInterval time.Duration

	RefusedTimeout  time.Duration // how long ready replicas are tried that all refuse connections; 5s
	ConnectTimeout  time.Duration // to open a connection to a replica; 5s
	ResponseTimeout time.Duration // until a replica begins its response, or reads on; 15m, for long completions
	StallTimeout    time.Duration // between two pieces that a client sends or accepts; 2m

	MaxBody   int64 // bytes of one request to a model; 64 MiB
	BodyBytes int64 // bytes of all bodies of such requests; 512 MiB, half of it for one project
	HeldBytes int64 // bytes of the bodies in memory that wait for one run; 12 MiB
	ReadBytes int64 // bytes of the bodies that are being read; 6 MiB, half of it for one project

	// MaxLag is by how much a body that is being read may be slower than 64 KiB
	// a second, once others may have to wait for it; 10s.
	MaxLag time.Duration
}

func (l Limits) orDefaults() Limits {
	return Limits{
		MaxHeld:         cmp.Or(l.MaxHeld, 1000),
		HoldTimeout:     cmp.Or(l.HoldTimeout, time.Minute),
		KeepAlive:       cmp.Or(l.KeepAlive, 5*time.Second),
		LongWait:        cmp.Or(l.LongWait, 2*time.Minute),
		LongKeepAlive:   cmp.Or(l.LongKeepAlive, 30*time.Second),
		NewlineAfter:    cmp.Or(l.NewlineAfter, 4*time.Minute),
		NewlineInterval: cmp.Or(l.NewlineInterval, 30*time.Second),
		RefusedTimeout:  cmp.Or(l.RefusedTimeout, 5*time.Second),
		ConnectTimeout:  cmp.Or(l.ConnectTimeout, 5*time.Second),
		ResponseTimeout: cmp.Or(l.ResponseTimeout, 15*time.Minute),
		StallTimeout:    cmp.Or(l.StallTimeout, 2*time.Minute),
		MaxBody:         cmp.Or(l.MaxBody, 64<<20),
		BodyBytes:       cmp.Or(l.BodyBytes, 512<<20),

		HeldBytes: cmp.Or(l.HeldBytes, 12<<20),
		ReadBytes: cmp.Or(l.ReadBytes, 6<<20),
		MaxLag:    cmp.Or(l.MaxLag, 10*time.Second),
	}
}

// Gateway serves requests by its latest route table. Until it has one, requests
// wait.
type Gateway struct {
	control       ControlPlane
	name          atomic.Pointer[string]
	site          route.Site
	proxies       route.Proxies
	ofGateways    []netip.Prefix // trusted proxies, unless a gateway has its own
	limits        Limits
	log           *slog.Logger
	proxyLog      *log.Logger // of httputil.ReverseProxy, at level debug
	queue         *waitQueue
	loads         *loadTracker
	metrics       *metrics
	prompts       *promptRenderer
	traits        *modelTraits
	rateLimiter   *rateLimiter
	sessions      *sessions
	signIns       *signInLimiter
	keys          *keyTracker
	bodyBudget    *budget
	readBudget    *budget
	uploadBudget  *budget // of bodies that are read while their requests wait, by run: see fastRequest.beginHold
	openings      *openingLimiter
	pool          *replicaPool
	fastServed    atomic.Uint64 // requests that the fast path served
	transport     *http.Transport
	grpcTransport *http.Transport
	buffers       buffers
	fastRequests  sync.Pool     // of *fastRequest
	ready         chan struct{} // closed by the first route table
	setReady      func()
}

// New returns a gateway, which serves once its Tasks run.
func New(o Options) *Gateway {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Dialer == nil {
		o.Dialer = &dial.Dialer{}
	}
	limits := o.Limits.orDefaults()
	g := &Gateway{
		control:    o.Control,
		site:       o.Site,
		limits:     limits,
		log:        o.Log,
		proxyLog:   slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		queue:      newWaitQueue(limits.MaxHeld, limits.HeldBytes),
		loads:      newLoadTracker(),
		ready:      make(chan struct{}),
		metrics:    newMetrics(),
		prompts:    newPromptRenderer(),
		sessions:   newSessions(o.SessionKey),
		signIns:    newSignInLimiter(),
		keys:       newKeyTracker(),
		bodyBudget: newBodyBudget(limits.BodyBytes, limits.MaxBody),
		readBudget: newReadBudget(limits.ReadBytes, limits.ReadBytes/2),
		openings:   newOpeningLimiter(),

		uploadBudget: newBudget(budgetLimits{total: limits.BodyBytes / 8, perOwner: limits.HeldBytes}),
	}
	g.traits = newModelTraits(g)
	g.SetName(cmp.Or(o.Name, "gateway"))
	g.setReady = sync.OnceFunc(func() { close(g.ready) })
	g.rateLimiter = newRateLimiter(g.loads.changed)
	g.site.Main = cmp.Or(g.site.Main, "main")
	g.ofGateways = o.GatewayProxies
	dialer := &replicaDialer{dialer: o.Dialer, openings: g.openings, limits: limits}
	g.pool = newReplicaPool(dialer)
	g.transport = newTransport(limits, dialer)
	g.grpcTransport = newGRPCTransport(g.transport)
	g.proxies = route.Proxies{Trusted: o.Proxies, Site: g.site}
	g.queue.onChange = g.loads.countWaiting
	return g
}

// RefuseWaiting refuses the requests that wait for a replica, and those that
// would have to from now on, so that a server can stop.
func (g *Gateway) RefuseWaiting() { g.queue.close() }

// Tasks are to run while the gateway serves. When they end, requests that wait
// for a replica are refused, as RefuseWaiting does.
func (g *Gateway) Tasks() []loop.Task {
	return append(g.traits.tasks(), loop.Task{Name: "route table", Run: g.followTable}, loop.Task{Name: "load report", Run: g.sendReports})
}

// Load returns what each run in the table does at this moment.
func (g *Gateway) Load() map[dstack.RunID]Load {
	loads := g.loads.snapshot()
	for run, held := range g.queue.queueSizes() {
		load := loads[run]
		load.Held = held
		loads[run] = load
	}
	return loads
}

// How long the gateway waits after it could not get a table.
const (
	minTableRetry = 100 * time.Millisecond
	maxTableRetry = 5 * time.Second
)

// followTable keeps the table up to date. While the server does not respond, the
// gateway serves by the latest one.
func (g *Gateway) followTable(ctx context.Context) error {
	defer g.pool.close()
	defer g.transport.CloseIdleConnections()
	defer g.grpcTransport.CloseIdleConnections()
	defer g.queue.close()
	var since uint64
	wait := minTableRetry
	for {
		table, err := g.control.Table(ctx, since)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			g.log.Warn("cannot get the route table; the last one stays", "err", err, "again_in", wait)
		case table.Version != since || g.loads.view.Load() == nil:
			g.applyTable(table)
			since, wait = table.Version, minTableRetry
			continue
		default: // the same version at once: do not spin
			wait = minTableRetry
		}
		if err := loop.Sleep(ctx, wait); err != nil {
			return err
		}
		if err != nil {
			wait = min(2*wait, maxTableRetry)
		}
	}
}

// applyTable makes requests follow a table, waiting ones included.
func (g *Gateway) applyTable(t route.Table) {
	index := route.NewIndex(t)
	g.metrics.applyTable(index)
	g.prompts.applyTable(index)
	g.traits.applyTable(index)
	g.rateLimiter.applyTable(index)
	g.loads.applyTable(index)
	g.keys.applyTable(index) // after the view: requests that begin meanwhile look there
	g.setReady()
	g.queue.wakeAll()
}
