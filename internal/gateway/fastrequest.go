package gateway

import (
	"slices"
	"sync/atomic"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/relay"
)

// fastRequest is one request on the fast path, as proxyRequest is one on the slow path. Its memory is used again. Its
// fields belong to the goroutine of the event loop; while the request waits, the lock of the wait queue guards those of
// the acquirer.
type fastRequest struct {
	director *director
	gateway  *Gateway
	x        *relay.Exchange

	run       *viewedRun    // that the request names; nil: none
	conn      *connMemo     // where the request goes, and the forwarded fields
	client    *route.Client // conn.client, or own where a trusted proxy sent the request
	own       route.Client
	forwarded []byte       // fields for the replica, but the ID: those of conn, or for own
	id        []byte       // of the request
	handle    relay.Handle // of the exchange
	begun     bool         // it is counted as one that takes the fast path
	sent      bool         // something of it may be at a replica
	replays   bool         // it may be sent to another replica where a connection breaks
	fields    fastFields   // what the head has
	access    fastAccess   // who may use what it names
	acquirer  fastAcquirer // limits, and the replica
	keyUse    *keyUse      // with key nil: no key for callers was used
	keyEnded  atomic.Bool  // its key for callers has ended
	keyTimer  *time.Timer  // at the time when the key expires; nil: never
	isKeyUsed bool         // keyUse is in the tracker
	model     fastModel    // of a call to a model
	upload    reservation  // of the upload budget: for x.Hold

	extra, responseExtra []byte // memory for fields that are added
}

func newFastRequest(g *Gateway) *fastRequest {
	f := &fastRequest{gateway: g}
	f.keyUse = &keyUse{end: f.endWithKey}
	f.acquirer.init(f)
	return f
}

// reset forgets the request.
func (f *fastRequest) reset() {
	f.director, f.x, f.run, f.conn, f.handle = nil, nil, nil, nil, relay.Handle{}
	f.client, f.own, f.forwarded = nil, route.Client{}, nil
	f.begun, f.sent, f.replays = false, false, false
	f.fields, f.access = fastFields{}, fastAccess{}
	f.acquirer.reset()
	f.model.reset()
}

// begin takes a request whose head has arrived through the steps of proxyRequest.serve. Whatever is not plain is handed over
// before anything was counted.
func (f *fastRequest) begin() relay.Step {
	f.handle = f.x.Handle()
	if !isPlain(&f.x.Request) || !f.identify() {
		return relay.HandOver
	}
	f.readFields()
	if f.fields.isOdd {
		return relay.HandOver
	}
	if f.conn.destination.Models {
		return f.beginModel()
	}
	if !f.isForReplica() || !f.authorize() {
		return relay.HandOver
	}
	f.access.single[0] = f.run.route
	f.access.routes = f.access.single[:]
	if !f.beginKey() {
		return relay.HandOver
	}
	return f.limitAndAcquire()
}

// limitAndAcquire goes on with a request that is authorized: it is counted from here on.
func (f *fastRequest) limitAndAcquire() relay.Step {
	f.count()
	if err := f.checkKeyLimit(); err != nil {
		return f.fail(err)
	}
	f.countKey(true)
	if err := f.acquirer.limit(); err != nil {
		return f.fail(err)
	}
	return f.acquirer.acquire()
}

// count begins to count the request as one of the fast path.
func (f *fastRequest) count() {
	if !f.begun && f.director.options.Began != nil {
		f.director.options.Began()
	}
	f.begun = true
}

// end ends what count began.
func (f *fastRequest) end() {
	if f.begun && f.director.options.Ended != nil {
		f.director.options.Ended()
	}
	f.begun = false
}

// handOver gives the request to the slow path, which goes on where the fast path stops: what was counted is not counted again.
func (f *fastRequest) handOver() relay.Step {
	f.model.body.handOver(f.gateway)
	if f.begun {
		f.conn.counted.Store(f.countedRequest())
	}
	f.release()
	f.end()
	return relay.HandOver
}

// countedRequest is what was counted of a request that is handed over.
type countedRequest struct {
	id           string
	startedAt    time.Time
	isKeyCounted bool
	isKeyLimited bool
	limited      dstack.RunID
	arrival      arrival
	waitingSince time.Time
	retries      retries
	lastReplica  *readyReplica
	begun        fastKeepAlive // of a call to a model whose response has begun
}

func (f *fastRequest) countedRequest() *countedRequest {
	a := &f.acquirer
	return &countedRequest{id: string(f.id), startedAt: f.x.StartedAt, isKeyCounted: f.keyUse.isCounted,
		isKeyLimited: f.keyUse.isLimited, limited: a.limited, arrival: a.arrival, waitingSince: a.waitingSince,
		lastReplica: a.lastReplica, begun: f.model.wait,
		retries: retries{excluded: slices.Clone(a.retries.excluded), refusedSince: a.retries.refusedSince, lastErr: a.retries.lastErr,
			resends: a.retries.resends}}
}

// continueCounted goes on with a request that the fast path handed over.
func (p *proxyRequest) continueCounted(c *countedRequest) {
	p.id, p.startedAt, p.begun = c.id, c.startedAt, c.begun
	p.keyUse = &keyUse{isCounted: c.isKeyCounted, isLimited: c.isKeyLimited}
	a := &p.acquirer
	a.limited, a.arrival, a.waitingSince, a.retries, a.lastReplica = c.limited, c.arrival, c.waitingSince, c.retries, c.lastReplica
}
