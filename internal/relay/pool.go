package relay

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"dstack/internal/eventloop"
)

// replicaPool has a worker's connections to one replica, and the exchanges that wait for one.
type replicaPool struct {
	worker      *worker
	name        string
	address     netip.AddrPort
	kept        []*replicaConn // at rest, the latest last
	first, last *clientConn    // that wait, in order
	waiting     int            // how many
	opening     []*replicaConn // attempts
	isAsking    bool           // Openings has been asked for a place
	open        int            // connections, those of attempts included
	succeededAt time.Time      // when a replica last responded, or took a request
	granted     func(Opening)
}

// maxKept is how many connections to one replica are kept at rest.
const maxKept = 512

// errHung says that a replica's system took no connection in time.
var errHung = errors.New("the replica does not accept connections: attempts to connect hang")

func newReplicaPool(w *worker, name string, address netip.AddrPort) *replicaPool {
	p := &replicaPool{worker: w, name: name, address: address}
	p.granted = func(place Opening) {
		if !w.loop.Send(eventloop.Func(func() { p.takeGranted(place) }), 0) {
			place.Leave(Unused)
		}
	}
	return p
}

// takeKept returns a connection at rest, or nil.
func (p *replicaPool) takeKept() *replicaConn {
	last := len(p.kept) - 1
	if last < 0 {
		return nil
	}
	r := p.kept[last]
	p.kept[last] = nil
	p.kept = p.kept[:last]
	p.worker.counts.kept.Add(-1)
	return r
}

// put keeps a connection whose exchange has ended, or gives it to an exchange that waits.
func (p *replicaPool) put(r *replicaConn) {
	switch {
	case p.first != nil:
		p.takeWaiter().useReplica(r)
	case len(p.kept) >= maxKept:
		r.close()
	default:
		p.kept = append(p.kept, r)
		p.worker.counts.kept.Add(1)
		p.worker.loop.Set(&r.timer, p.worker.limits.ReplicaIdle)
	}
}

// removeKept takes out a connection that is to be closed.
func (p *replicaPool) removeKept(r *replicaConn) {
	if i := slices.Index(p.kept, r); i >= 0 {
		p.kept = slices.Delete(p.kept, i, i+1)
		p.worker.counts.kept.Add(-1)
	}
}

// addWaiter makes an exchange wait for a connection.
func (p *replicaPool) addWaiter(c *clientConn) {
	c.pool, c.ahead, c.after = p, p.last, nil
	if p.last == nil {
		p.first = c
	} else {
		p.last.after = c
	}
	p.last = c
	p.waiting++
	c.limitClient()
	p.openMore()
}

// takeWaiter returns the exchange that waits longest.
func (p *replicaPool) takeWaiter() *clientConn {
	c := p.first
	if c != nil {
		p.removeWaiter(c)
	}
	return c
}

func (p *replicaPool) removeWaiter(c *clientConn) {
	if c.ahead == nil {
		p.first = c.after
	} else {
		c.ahead.after = c.after
	}
	if c.after == nil {
		p.last = c.ahead
	} else {
		c.after.ahead = c.ahead
	}
	c.pool, c.ahead, c.after, c.state = nil, nil, nil, waiting
	p.waiting--
	c.limitClient()
}

// openMore opens connections until each exchange that waits will have one, a place at a time.
func (p *replicaPool) openMore() {
	openings := p.worker.relay.options.Openings
	for p.waiting > len(p.opening) && !p.isAsking {
		var place Opening
		if openings != nil {
			if place = openings.Enter(p.name, p.granted); place == nil {
				p.isAsking = true
				return
			}
		}
		p.connect(place)
	}
}

// takeGranted is called when an attempt that waited got a place.
func (p *replicaPool) takeGranted(place Opening) {
	p.isAsking = false
	if p.waiting > len(p.opening) {
		p.connect(place)
	} else {
		place.Leave(Unused)
	}
	p.openMore()
	p.forgetUnused()
}

// connect makes an attempt. It has a place, unless there are no Openings.
func (p *replicaPool) connect(place Opening) {
	r := &replicaConn{worker: p.worker, pool: p, isOpening: true, place: place}
	r.timer.To = r
	p.opening = append(p.opening, r)
	p.open++
	if err := r.Connect(p.worker.loop, p.address, r); err != nil {
		r.endOpening(Refused, err)
		return
	}
	p.worker.loop.Set(&r.timer, p.worker.limits.ConnectTimeout)
}

// forgetUnused removes a pool that has nothing.
func (p *replicaPool) forgetUnused() {
	if p.open == 0 && p.waiting == 0 && !p.isAsking && p.worker.pools[p.name] == p {
		delete(p.worker.pools, p.name)
	}
}

// endAttempt takes out an attempt to open a connection that has ended.
func (p *replicaPool) endAttempt(r *replicaConn) {
	if i := slices.Index(p.opening, r); i >= 0 {
		p.opening = slices.Delete(p.opening, i, i+1)
	}
}

// close closes the connections at rest, and ends attempts to open some.
func (p *replicaPool) close() {
	for len(p.opening) > 0 {
		r := p.opening[0]
		p.endAttempt(r)
		r.leavePlace(Unused)
		r.close()
	}
	for r := p.takeKept(); r != nil; r = p.takeKept() {
		r.close()
	}
}
