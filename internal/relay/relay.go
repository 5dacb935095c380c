// Package relay is the fast path of the data plane: it carries HTTP/1.1 between clients and replicas by event loops, with
// no goroutine and no buffer for a connection at rest. A Director decides about each request; what the relay does not serve
// goes to net/http with all bytes that were read. On systems other than Linux everything goes there.
package relay

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"dstack/internal/eventloop"
	"dstack/internal/loop"
)

// Options configure a relay. Director is required.
type Options struct {
	Director Director
	Openings Openings // nil: connections to replicas are opened without a limit
	Loops    int      // event loops; 0: one for each processor that Go uses
	Limits   Limits
	Log      *slog.Logger
}

// Limits are bounds. Zero stands for the default.
type Limits struct {
	HeadTimeout     time.Duration // from the first byte of a head to its last; 10s
	IdleTimeout     time.Duration // of a client's connection between requests; 2m
	ReplicaIdle     time.Duration // of a replica's connection between requests; 1.5s
	ConnectTimeout  time.Duration // of one attempt to open a connection to a replica; 1s
	OpenTimeout     time.Duration // without any success, until an exchange that needs a connection fails; 5s
	ResponseTimeout time.Duration // until a replica begins its response, or reads on; 15m
	StallTimeout    time.Duration // between two pieces that a client sends or accepts; 2m
}

// Openings limits how many connections to one replica are being opened, on all paths together. Its methods may be called
// by several goroutines at once.
type Openings interface {
	// Enter takes a place for an attempt to open a connection to address. Without a free one it returns nil and the attempt
	// waits: granted is called once, by any goroutine, when there is a place for it; a place that is not wanted any more is
	// given back as Unused. It must not block.
	Enter(address string, granted func(Opening)) Opening
}

// Opening is the place of one attempt to open a connection. Its methods must not block.
type Opening interface {
	// Connected says that the connection is established. A replica may be busy for long before it responds, so the place
	// serves another attempt soon after, also before Leave.
	Connected()
	// Leave gives the place back and says how the attempt ended. It is called once, at the first byte of a response at the
	// latest.
	Leave(result OpeningResult)
}

// OpeningResult is how an attempt to open a connection ended.
type OpeningResult uint8

// The results.
const (
	Opened  OpeningResult = iota // the replica responded over it, or broke it after it had got the request
	Hung                         // it was abandoned: not established, or nothing that was sent was acknowledged
	Refused                      // the replica refused it
	Unused                       // it was not made
)

// withDefaults returns the limits, with the default for those that are zero.
func (l Limits) withDefaults() Limits {
	return Limits{
		HeadTimeout:     cmp.Or(l.HeadTimeout, 10*time.Second),
		IdleTimeout:     cmp.Or(l.IdleTimeout, 2*time.Minute),
		ReplicaIdle:     cmp.Or(l.ReplicaIdle, 1500*time.Millisecond),
		ConnectTimeout:  cmp.Or(l.ConnectTimeout, time.Second),
		OpenTimeout:     cmp.Or(l.OpenTimeout, 5*time.Second),
		ResponseTimeout: cmp.Or(l.ResponseTimeout, 15*time.Minute),
		StallTimeout:    cmp.Or(l.StallTimeout, 2*time.Minute),
	}
}

// Relay serves connections of clients. Its methods may be called by several goroutines at once.
type Relay struct {
	options Options
	workers []*worker // none where the system has no event loops
	next    atomic.Uint64
	closed  loop.Wake // signals that a client's connection was closed
}

// New makes a relay, which serves while its tasks run. It fails if the system has no file descriptors left.
func New(o Options) (*Relay, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.withDefaults()
	r := &Relay{options: o, closed: loop.NewWake()}
	if !eventloop.IsSupported {
		return r, nil
	}
	for range cmp.Or(o.Loops, runtime.GOMAXPROCS(0)) {
		w, err := newWorker(r)
		if err != nil {
			r.freeLoops()
			return nil, err
		}
		r.workers = append(r.workers, w)
	}
	return r, nil
}

// freeLoops closes the file descriptors of loops that never run.
func (r *Relay) freeLoops() {
	ended, end := context.WithCancel(context.Background())
	end()
	for _, w := range r.workers {
		_ = w.run(ended) // its error is that of ended
	}
}

// Tasks returns what runs the relay: the event loops. When their context ends, all connections are closed.
func (r *Relay) Tasks() []loop.Task {
	tasks := make([]loop.Task, len(r.workers))
	for i, w := range r.workers {
		tasks[i] = loop.Task{Name: "event loop " + strconv.Itoa(i+1), Run: w.run}
	}
	return tasks
}

// serve takes a connection that l accepted.
func (r *Relay) serve(conn net.Conn, l *Listener) {
	if len(r.workers) == 0 {
		l.deliver(conn)
		return
	}
	client, local := addressOf(conn.RemoteAddr()), addressOf(conn.LocalAddr())
	fd, err := eventloop.TakeConn(conn)
	if err != nil {
		l.deliver(conn)
		return
	}
	w := r.findLeastBusy()
	w.counts.connections.Add(1)
	if !w.loop.Send(eventloop.Func(func() { w.attach(fd, l, client, local) }), 0) {
		w.counts.connections.Add(-1)
		eventloop.CloseFD(fd)
	}
}

// findLeastBusy returns the worker with the fewest clients.
func (r *Relay) findLeastBusy() *worker {
	first := int(r.next.Add(1) % uint64(len(r.workers)))
	best := r.workers[first]
	for i := range r.workers {
		if w := r.workers[(first+i)%len(r.workers)]; w.counts.connections.Load() < best.counts.connections.Load() {
			best = w
		}
	}
	return best
}

// Drain closes the connections that are at rest, and those of exchanges when these end; it returns once there are none left, or
// ctx has ended. Listeners are to be closed before it. Requests that still arrive over connections that are open are served, or
// handed over: the http.Server of the listeners is to be shut down after Drain.
func (r *Relay) Drain(ctx context.Context) {
	for _, w := range r.workers {
		w.loop.Send(eventloop.Func(w.drain), 0)
	}
	for r.Counts().Connections > 0 {
		select {
		case <-r.closed:
		case <-ctx.Done():
			return
		}
	}
}

// noteClosed tells Drain that a connection was closed.
func (r *Relay) noteClosed() { r.closed.Signal() }

// Counts says what a relay has at the moment.
type Counts struct {
	Connections int // of clients, those at rest included
	Exchanges   int // that have not ended, those that wait included
	Kept        int // connections to replicas at rest
}

// Counts returns what the relay has at the moment.
func (r *Relay) Counts() Counts {
	var sum Counts
	for _, w := range r.workers {
		sum.Connections += int(w.counts.connections.Load())
		sum.Exchanges += int(w.counts.exchanges.Load())
		sum.Kept += int(w.counts.kept.Load())
	}
	return sum
}
