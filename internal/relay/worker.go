package relay

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"dstack/internal/eventloop"
	"dstack/internal/httpwire"
)

// Sizes of reads, and of the room around what was read.
const (
	readSize    = 64 << 10
	maxHeadRead = 16 << 10 // while a head is expected
	frameRoom   = 8 << 10  // before what was read: for a head, or the line of a chunk
	frameTail   = 64       // behind it: for the end of a chunk, and the last one
	maxReads    = 4        // of one connection before others have their turn
)

// worker is an event loop with its connections. All but counts is for the goroutine of the loop.
type worker struct {
	relay      *Relay
	loop       *eventloop.Loop
	limits     Limits
	input      []byte // what was read last, behind frameRoom
	head       []byte // the head that is being written
	extra      []byte // the fields that are added to it
	tail       []byte // what follows a part of a body
	fields     []httpwire.Field
	memory     memory
	pools      map[string]*replicaPool
	clients    clientList
	date       dateField
	isDraining bool
	asks       *clientConn // whose director is being called; nil: none is
	counts     counts
}

// counts are read by other goroutines.
type counts struct {
	connections atomic.Int64 // of clients
	exchanges   atomic.Int64
	kept        atomic.Int64
	_           [40]byte // each worker has a cache line of its own
}

func newWorker(r *Relay) (*worker, error) {
	w := &worker{
		relay: r, limits: r.options.Limits, pools: map[string]*replicaPool{},
		input: make([]byte, frameRoom+readSize+frameTail),
	}
	var err error
	w.loop, err = eventloop.New(eventloop.Options{Stop: w.stop, Panicked: w.survive})
	return w, err
}

// attach takes a connection that was accepted.
func (w *worker) attach(fd int, l *Listener, client, local netip.AddrPort) {
	c := &clientConn{worker: w, listener: l, isNew: true}
	c.x.Client, c.x.Local, c.x.conn = client, local, c
	c.timer.To, c.wakeTimer.To = (*clientTimeout)(c), (*exchangeTimeout)(c)
	if err := c.Attach(w.loop, fd, c); err != nil {
		w.counts.connections.Add(-1)
		w.relay.noteClosed()
		w.relay.options.Log.Warn("cannot serve a connection", "err", err)
		return
	}
	w.clients.add(c)
	limit := w.limits.HeadTimeout
	if w.isDraining {
		limit = min(limit, lateFirstByte)
	}
	w.loop.Set(&c.timer, limit)
}

// stop ends everything, when the loop ends.
func (w *worker) stop() {
	w.isDraining = true
	for c := w.clients.first; c != nil; c = w.clients.first {
		c.cut(WasCut)
	}
	for _, p := range w.pools {
		p.close()
	}
}

// drain closes the connections that are at rest.
func (w *worker) drain() {
	w.isDraining = true
	for c := w.clients.first; c != nil; {
		next := c.next
		if c.state == atRest {
			c.drainAtRest()
		}
		c = next
	}
}

// addressOf returns the address of a TCP connection's end.
func addressOf(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// run is the task of the worker.
func (w *worker) run(ctx context.Context) error { return w.loop.Run(ctx) }

// clientList is a list of all clients of a worker.
type clientList struct{ first *clientConn }

func (l *clientList) add(c *clientConn) {
	c.next = l.first
	if l.first != nil {
		l.first.previous = c
	}
	l.first = c
}

func (l *clientList) remove(c *clientConn) {
	if c.previous != nil {
		c.previous.next = c.next
	} else if l.first == c {
		l.first = c.next
	}
	if c.next != nil {
		c.next.previous = c.previous
	}
	c.previous, c.next = nil, nil
}
