package relay

import (
	"time"

	"dstack/internal/eventloop"
)

// Expire ends what takes the client too long.
func (t *clientTimeout) Expire(*eventloop.Timer) {
	c := (*clientConn)(t)
	switch {
	case c.out.isPending() && c.isExchanging():
		c.cut(ClientLeft)
	case c.state == connecting:
		c.expireOpening()
	case c.state == collecting:
		if e, isEvent := c.refuseBody(errBodyStalled); isEvent {
			c.proceed(e)
		}
	case c.state == sent || c.state == responding:
		c.failBody(errBodyStalled)
	case !c.isExchanging():
		c.close()
	}
}

// limitClient sets the limit of time for what the exchange waits for from its client: that it accepts what was sent to it, or
// sends the rest of its body. Without that, an exchange that has no connection to a replica yet waits for one.
func (c *clientConn) limitClient() {
	loop, limits := c.worker.loop, &c.worker.limits
	switch {
	case c.out.isPending(), c.state == collecting, c.isSending():
		loop.Set(&c.timer, limits.StallTimeout)
	case c.state == connecting:
		loop.Set(&c.timer, max(limits.OpenTimeout-loop.Now().Sub(c.waitsAt), time.Millisecond))
	default:
		loop.Clear(&c.timer)
	}
}

// isSending reports whether the replica could get more of the body than the client has sent.
func (c *clientConn) isSending() bool {
	r := c.replica
	return r != nil && !c.body.isDone && !r.out.isPending() && r.writeError == nil
}

// expireOpening ends the wait for a connection, unless the replica served others meanwhile.
func (c *clientConn) expireOpening() {
	w := c.worker
	since := c.waitsAt
	if c.pool.succeededAt.After(since) {
		since = c.pool.succeededAt
	}
	if left := w.limits.OpenTimeout - w.loop.Now().Sub(since); left > 0 {
		w.loop.Set(&c.timer, left)
		return
	}
	c.pool.removeWaiter(c)
	c.connectFailed(errHung)
}

// Expire tells the director that the time of WakeAt has come.
func (t *exchangeTimeout) Expire(*eventloop.Timer) {
	if c := (*clientConn)(t); c.canDecide() {
		c.proceed(TimePassed)
	}
}

// canDecide reports whether the director may be asked: the exchange has begun, and its replica has not begun to respond.
func (c *clientConn) canDecide() bool {
	return c.isExchanging() && c.state >= collecting && c.state <= sent
}

// Messages of handles are a generation and what is to be done.
const (
	messageWake = iota
	messageCut
	messageKinds
)

// Receive does what a handle asks for.
func (c *clientConn) Receive(message uint64) {
	if message/messageKinds != c.generation || !c.isExchanging() {
		return
	}
	switch {
	case message%messageKinds == messageCut:
		c.cut(WasCut)
	case c.canDecide():
		c.body.wasFull = false
		c.proceed(Woken)
	case c.nextStep(Woken) == Cut: // the response is being sent: nothing else is possible
		c.cut(WasCut)
	}
}
