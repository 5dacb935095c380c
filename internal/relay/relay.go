// Package relay is the fast path of the data plane: it carries HTTP/1.1 between clients and replicas by event loops, with
// no goroutine and no buffer for a connection at rest. A Director decides about each request; what the relay does not serve
// goes to net/http with all bytes that were read. On systems other than Linux everything goes there.
package relay

import (
	"context"
	"log/slog"
	"net"
	"time"

	"dstack/internal/loop"
)

// Relay serves connections of clients. Its methods may be called by several goroutines at once.
type Relay struct {
	options Options
}

// New makes a relay, which serves once its tasks run. Close what it holds with the context of its tasks.
func New(o Options) (*Relay, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Relay{options: o}, nil
}

// Tasks returns what runs the relay: the event loops. When their context ends, all connections are closed.
func (r *Relay) Tasks() []loop.Task { return nil }

// serve takes a connection that l accepted.
func (r *Relay) serve(conn net.Conn, l *Listener) { l.deliver(conn) }

// Drain closes the connections that are at rest, and those of exchanges when these end; it returns once there are no
// exchanges left, or ctx has ended. Listeners are to be closed before it. Requests that still arrive are handed over or served, with
// Connection: close.
func (r *Relay) Drain(ctx context.Context) {}

// Counts says what a relay has at the moment.
type Counts struct {
	Connections int // of clients, those at rest included
	Exchanges   int // that have not ended, those that wait included
	Kept        int // connections to replicas at rest
}

// Counts returns what the relay has at the moment.
func (r *Relay) Counts() Counts { return Counts{} }

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
	ResponseTimeout time.Duration // until a replica begins its response, or reads on; 15m
	StallTimeout    time.Duration // between two pieces that a client sends or accepts; 2m
	MaxHead         int           // bytes of a head; 64 KiB
	WriteBehind     int           // bytes that wait for a slow side before the other is not read any more; 64 KiB
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
