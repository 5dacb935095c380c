package gateway

import (
	"context"
	"sync"
	"time"

	"dstack/internal/relay"
)

const (
	// firstOpenings is how many connections to a replica are opened at once at first. Python's http.server has a listen
	// queue of 5, and Linux drops what does not fit into it: a client tries again after one second, then three, seven, 15.
	firstOpenings = 4
	maxOpenings   = 256
	// minAcceptTime is how long an established connection takes a place of its replica's listen queue, unless the replica
	// responds before. A connection that hangs shows that the replica accepts more slowly.
	minAcceptTime = 50 * time.Millisecond
	maxAcceptTime = 500 * time.Millisecond
	// maxFruitlessWait is how long an attempt waits for a place while no other attempt succeeds. After it the replica is
	// taken to be away rather than busy, and each attempt finds that out by itself.
	maxFruitlessWait = time.Second
	// openingsIdleTime is how long a replica's limit is remembered after its last opening.
	openingsIdleTime = 5 * time.Minute
	// slowGrowth is how many times slower a limit grows once connections have hung. With each one that succeeds it grows
	// faster again by growthRecovery.
	slowGrowth     = 16
	growthRecovery = 1.02
	// minSuspicion is how long an attempt takes at least that seems to hang. It has no place in a listen queue then.
	minSuspicion = 20 * time.Millisecond
)

// openingLimiter limits how many connections to one replica are being opened, on all paths together. The limit of a replica
// grows by one each time as many connections as it allows have succeeded while others waited. A connection that hangs halves
// it, and from then on it grows slowly. Opened connections are not limited.
type openingLimiter struct {
	mu       sync.Mutex
	replicas map[string]*replicaOpenings
	sweptAt  time.Time // when idle replicas were forgotten last
}

// replicaOpenings has the limit of one replica, and the attempts to connect to it.
type replicaOpenings struct {
	limit       float64 // places
	growth      float64 // by how much it grows when as many as it allows have succeeded
	taken       int
	connectTime time.Duration // the mean of the latest ones
	acceptTime  time.Duration // how long an established connection keeps its place
	waiting     []*openingWait
	timer       *time.Timer // runs while attempts wait; nil: none waited yet
	succeededAt time.Time   // when a connection was established, or a replica responded
	shrunkAt    time.Time
	usedAt      time.Time
}

// openingWait is an attempt that waits for a place.
type openingWait struct {
	granted func(*opening)
	since   time.Time
}

// opening is the place of one attempt. The limiter's lock guards it.
type opening struct {
	limiter   *openingLimiter
	replica   *replicaOpenings
	enteredAt time.Time
	timer     *time.Timer // gives the place back; nil: it takes none
	connected bool
	isCounted bool // it takes a place
	hasGrown  bool // it has raised the limit
}

var _ relay.Openings = (*openingLimiter)(nil)

func newOpeningLimiter() *openingLimiter {
	return &openingLimiter{replicas: map[string]*replicaOpenings{}, sweptAt: time.Now()}
}

// Enter implements relay.Openings.
func (l *openingLimiter) Enter(address string, granted func(relay.Opening)) relay.Opening {
	place, _ := l.enter(address, func(o *opening) { granted(o) })
	if place == nil {
		return nil
	}
	return place
}

// wait is Enter for a goroutine. It waits until there is a place, or ctx ends.
func (l *openingLimiter) wait(ctx context.Context, address string) (*opening, error) {
	places := make(chan *opening, 1)
	place, w := l.enter(address, func(o *opening) { places <- o })
	if place != nil {
		return place, nil
	}
	select {
	case place := <-places:
		return place, nil
	case <-ctx.Done():
		if !l.giveUp(address, w) {
			(<-places).Leave(relay.Unused) // it was granted meanwhile
		}
		return nil, context.Cause(ctx)
	}
}

// enter takes a place, or makes the attempt wait.
func (l *openingLimiter) enter(address string, granted func(*opening)) (*opening, *openingWait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	r := l.openingsOf(address, now)
	if len(r.waiting) == 0 && r.hasPlace() {
		return l.takePlace(r, now), nil
	}
	w := &openingWait{granted: granted, since: now}
	if r.waiting = append(r.waiting, w); len(r.waiting) == 1 {
		l.scheduleCheck(r, maxFruitlessWait)
	}
	return nil, w
}

// giveUp removes an attempt from those that wait. It returns false if that got a place.
func (l *openingLimiter) giveUp(address string, w *openingWait) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[address] // kept while attempts wait
	if r == nil {
		return false
	}
	for i, other := range r.waiting {
		if other == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// openingsOf returns what is known of a replica. Now and then it forgets the replicas that are idle.
func (l *openingLimiter) openingsOf(address string, now time.Time) *replicaOpenings {
	if now.Sub(l.sweptAt) > openingsIdleTime {
		l.sweptAt = now
		for address, r := range l.replicas {
			if r.taken == 0 && len(r.waiting) == 0 && now.Sub(r.usedAt) > openingsIdleTime {
				delete(l.replicas, address)
			}
		}
	}
	r := l.replicas[address]
	if r == nil {
		r = &replicaOpenings{limit: firstOpenings, growth: 1, acceptTime: minAcceptTime}
		l.replicas[address] = r
	}
	r.usedAt = now
	return r
}

func (r *replicaOpenings) hasPlace() bool { return r.taken < int(r.limit) }

// takePlace returns a place. The caller holds the lock.
func (l *openingLimiter) takePlace(r *replicaOpenings, now time.Time) *opening {
	r.taken++
	o := &opening{limiter: l, replica: r, enteredAt: now, isCounted: true}
	o.timer = time.AfterFunc(minSuspicion+4*r.connectTime, o.giveBack)
	return o
}

// grantPlaces takes places for the attempts that wait longest, and returns what grants them, to be called without the lock.
func (l *openingLimiter) grantPlaces(r *replicaOpenings, now time.Time) (grants []func()) {
	for len(r.waiting) > 0 && r.hasPlace() {
		granted, place := r.waiting[0].granted, l.takePlace(r, now)
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
		grants = append(grants, func() { granted(place) })
	}
	return grants
}

// scheduleCheck makes checkWaiting run. The caller holds the lock.
func (l *openingLimiter) scheduleCheck(r *replicaOpenings, after time.Duration) {
	if r.timer == nil {
		r.timer = time.AfterFunc(after, func() { l.checkWaiting(r) })
		return
	}
	r.timer.Reset(after)
}

// checkWaiting lets the attempts go that have waited in vain: no other one has succeeded meanwhile.
func (l *openingLimiter) checkWaiting(r *replicaOpenings) {
	l.mu.Lock()
	now := time.Now()
	var grants []func()
	for len(r.waiting) > 0 {
		since := r.waiting[0].since
		if r.succeededAt.After(since) {
			since = r.succeededAt
		}
		if remaining := maxFruitlessWait - now.Sub(since); remaining > 0 {
			l.scheduleCheck(r, remaining)
			break
		}
		granted, place := r.waiting[0].granted, &opening{limiter: l, replica: r, enteredAt: now}
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
		grants = append(grants, func() { granted(place) })
	}
	l.mu.Unlock()
	callAll(grants)
}

func callAll(grants []func()) {
	for _, grant := range grants {
		grant()
	}
}

// Connected implements relay.Opening.
func (o *opening) Connected() {
	l, r := o.limiter, o.replica
	l.mu.Lock()
	defer l.mu.Unlock()
	r.succeededAt = time.Now()
	if o.connected = true; o.isCounted {
		r.connectTime += (r.succeededAt.Sub(o.enteredAt) - r.connectTime) / 8
		o.timer.Reset(r.acceptTime)
	}
}

// giveBack gives the place back of an attempt that seems to hang, or that a replica should have accepted by now.
func (o *opening) giveBack() {
	l, r := o.limiter, o.replica
	l.mu.Lock()
	now := time.Now()
	if o.isCounted && o.connected {
		r.grow(o)
	} else if o.isCounted {
		r.shrink(o, now)
	}
	o.free()
	grants := l.grantPlaces(r, now)
	l.mu.Unlock()
	callAll(grants)
}

// free ends the counting of a place. The caller holds the lock.
func (o *opening) free() {
	if o.isCounted {
		o.isCounted = false
		o.replica.taken--
		o.timer.Stop()
	}
}

// Leave implements relay.Opening.
func (o *opening) Leave(result relay.OpeningResult) {
	l, r := o.limiter, o.replica
	l.mu.Lock()
	now := time.Now()
	o.free()
	r.usedAt = now
	switch result {
	case relay.Opened:
		r.succeededAt = now
		r.grow(o)
	case relay.Hung:
		r.shrink(o, now)
	case relay.Refused, relay.Unused:
	}
	grants := l.grantPlaces(r, now)
	l.mu.Unlock()
	callAll(grants)
}

// grow raises the limit where it keeps attempts waiting.
func (r *replicaOpenings) grow(o *opening) {
	if o.hasGrown || len(r.waiting) == 0 {
		return
	}
	o.hasGrown = true
	r.limit = min(r.limit+r.growth/r.limit, maxOpenings)
	r.growth = min(r.growth*growthRecovery, 1)
	r.acceptTime = max(r.acceptTime-r.acceptTime/32, minAcceptTime)
}

// shrink halves the limit, once for all connections that hang together. That a replica accepts nothing at all says nothing
// about its listen queue: it is away.
func (r *replicaOpenings) shrink(o *opening, now time.Time) {
	if o.enteredAt.Before(r.shrunkAt) {
		return
	}
	r.shrunkAt = now
	if now.Sub(r.succeededAt) > maxFruitlessWait {
		r.limit, r.growth, r.acceptTime = firstOpenings, 1, minAcceptTime
		return
	}
	r.limit = max(r.limit/2, 1)
	r.growth = 1.0 / slowGrowth
	r.acceptTime = min(2*r.acceptTime, maxAcceptTime)
}

// lastSuccess returns when a connection to the replica was established last, or the replica responded over a new one.
func (o *opening) lastSuccess() time.Time {
	o.limiter.mu.Lock()
	defer o.limiter.mu.Unlock()
	return o.replica.succeededAt
}
