// Package gateway is the data plane: it takes requests for services and
// models, and brings them to a replica that is ready.
package gateway

import (
	"cmp"
	"context"
	"log"
	"log/slog"
	"net/http"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// ControlPlane is what a gateway needs of the server: the API client is one,
// and the server itself where both share a process.
type ControlPlane interface {
	// Table returns the whole route table once its version is another than
	// since, 0 being none. It waits as long as ctx allows, and may give the
	// same version again after a while. It may be repeated at any time.
	Table(ctx context.Context, since uint64) (route.Table, error)

	// Report takes note of what the gateway counts. It is told each second,
	// and at once when a run without a replica gets its first request and when
	// a replica that was taken out of the table has nothing in flight any
	// more. Losing one costs a second; a later one replaces it.
	Report(ctx context.Context, c dstack.LoadReport) error
}

// Options is what a gateway is made of.
type Options struct {
	Control ControlPlane
	Domain  string // <run>.<domain>; localhost when empty
	Main    string // the project whose runs stand directly below it; main when empty
	Name    string // tells this gateway from others in its reports; gateway when empty
	Limits  Limits
	Log     *slog.Logger // slog.Default when nil
}

// Limits are bounds. Zero stands for the default.
type Limits struct {
	MaxHeld         int           // requests that wait for one run, unless that says; 1000
	HoldTimeout     time.Duration // how long a request waits for a replica, unless its run says; 60s
	KeepAlive       time.Duration // how long until a stream that waits is told so, again and again; 5s
	RefusedTimeout  time.Duration // how long one is tried whose ready replicas all refuse connections; 5s
	ConnectTimeout  time.Duration // to open a connection to a replica; 5s
	ResponseTimeout time.Duration // until a replica begins to answer; 15m, for long completions
	StallTimeout    time.Duration // between two pieces that a client sends or takes; 2m
	MaxBody         int64         // bytes of a request to a model; 64 MiB
	BodyBytes       int64         // bytes of all those together; 512 MiB, half of it for one project

	HeldBytes int64 // bytes in memory of requests that wait for one run; 12 MiB
	ReadBytes int64 // bytes of those that are read and neither wait nor have a replica; 6 MiB, half of it for one project

	// MaxLag is by how much such a body may lag behind 64 KiB a second, once
	// others may have to wait for it; 10s.
	MaxLag time.Duration
}

func (l Limits) orDefaults() Limits {
	return Limits{
		MaxHeld:         cmp.Or(l.MaxHeld, 1000),
		HoldTimeout:     cmp.Or(l.HoldTimeout, time.Minute),
		KeepAlive:       cmp.Or(l.KeepAlive, 5*time.Second),
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

// Gateway serves requests by its last route table. It answers nothing but
// “not yet” until it has one.
type Gateway struct {
	control   ControlPlane
	name      string
	domain    route.Domain
	limits    Limits
	log       *slog.Logger
	errors    *log.Logger // what the proxy underneath has to say; it is never news
	hold      *waitQueue
	loads     *loadTracker
	numbers   *metrics
	prompts   *promptRenderer
	limited   *rateLimiter
	room      *room
	reading   *reading
	transport *http.Transport
	buffers   buffers
}

// New makes a gateway. It does nothing by itself: see Tasks.
func New(o Options) *Gateway {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	limits := o.Limits.orDefaults()
	g := &Gateway{
		control:   o.Control,
		name:      cmp.Or(o.Name, "gateway"),
		domain:    route.Domain{Name: cmp.Or(o.Domain, "localhost"), Main: cmp.Or(o.Main, "main")},
		limits:    limits,
		log:       o.Log,
		errors:    slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		hold:      newWaitQueue(limits.MaxHeld),
		loads:     newLoadTracker(),
		numbers:   newMetrics(),
		prompts:   newPromptRenderer(),
		limited:   newRateLimiter(),
		room:      newRoom(limits.BodyBytes, limits.MaxBody),
		reading:   newReading(limits.ReadBytes, limits.ReadBytes/2),
		transport: newTransport(limits),
	}
	g.hold.moved = g.loads.countWaiting
	return g
}

// Tasks is what must run while the gateway serves. When they end, requests
// that wait for a replica are sent away, so that a server can stop.
func (g *Gateway) Tasks() []loop.Task {
	return []loop.Task{{Name: "route table", Run: g.follow}, {Name: "load report", Run: g.report}}
}

// Load returns what each run in the table does at this moment.
func (g *Gateway) Load() map[dstack.RunID]Load {
	all := g.loads.snapshot()
	for run, held := range g.hold.queueSizes() {
		load := all[run]
		load.Held = held
		all[run] = load
	}
	return all
}

// How long the gateway waits after a table that it could not get.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// follow keeps the table up to date. Without the server the last one stays.
func (g *Gateway) follow(ctx context.Context) error {
	defer g.transport.CloseIdleConnections()
	defer g.hold.close()
	var since uint64
	wait := retryFirst
	for {
		table, err := g.control.Table(ctx, since)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			g.log.Warn("cannot get the route table; the last one stays", "err", err, "again_in", wait)
		case table.Version != since || g.loads.view.Load() == nil:
			g.applyTable(table)
			since, wait = table.Version, retryFirst
			continue
		default: // nothing new; do not spin when it says so at once
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		if err != nil {
			wait = min(2*wait, retryMost)
		}
	}
}

// applyTable makes a table the one that requests go by, and lets those that wait
// look at it.
func (g *Gateway) applyTable(t route.Table) {
	index := route.NewIndex(t)
	g.numbers.applyTable(index)
	g.prompts.applyTable(index)
	g.limited.applyTable(index)
	g.loads.applyTable(index)
	g.hold.wakeAll()
}
