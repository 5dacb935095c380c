package relay

import (
	"errors"
	"strconv"
	"time"

	"dstack/internal/eventloop"
	"dstack/internal/httpwire"
)

// clientState is what a client's connection is used for at the moment.
type clientState uint8

const (
	atRest      clientState = iota // nothing of a request has arrived
	readingHead                    // a part of a head has arrived
	collecting                     // the step ReadBody
	waiting                        // the step Wait
	connecting                     // the step Send, without a connection yet
	sent                           // the replica has the request, or gets it
	responding                     // the replica's response is being passed on
	flushing                       // the response is complete, and not sent wholly
	discarding                     // the rest of the body of an answered request is skipped
	lingering                      // nothing more is sent, and what arrives is dropped
	closed
)

// clientConn is the connection of a client. It is used by the goroutine of its worker only.
type clientConn struct {
	eventloop.Socket
	x              Exchange
	worker         *worker
	listener       *Listener
	previous, next *clientConn // in worker.clients
	state          clientState
	generation     uint64 // of the exchange, for handles

	in   []byte // the head of the request, and what followed it
	more []byte // what was read later, and not used yet
	rest []byte // the part of in or more that was not used yet
	out  output

	body      requestBody
	replica   *replicaConn // that serves the exchange
	pool      *replicaPool // in which the exchange waits for a connection
	waitsAt   time.Time    // since when
	ahead     *clientConn  // the one that waits in pool before this one
	after     *clientConn  // the next one that waits in pool
	response  responseState
	isNew     bool // no request was served yet
	isTimed   bool // HeadTimeout runs
	isParsed  bool // in was parsed, and is incomplete
	willClose bool // the connection is closed after the response
	failure   error

	timer, wakeTimer eventloop.Timer
}

// responseState is how far a response is.
type responseState struct {
	hasBegun      bool // its head was sent, or waits to be sent
	inChunks      bool // as the client gets it
	isWhole       bool // all of it was sent, or waits to be sent
	isUntilClose  bool // the end of the connection is that of the body
	isRecoded     bool // its chunks are not those of the replica
	isBroken      bool // it is not complete, although it is whole
	informational int  // responses that were passed on
	skipped       int  // heads before the final one
}

// lateFirstByte is how long a new connection may be silent while the relay drains.
const lateFirstByte = 250 * time.Millisecond

// Ready handles the events of the socket.
func (c *clientConn) Ready() {
	if c.HasFailed {
		c.cut(ClientLeft)
		return
	}
	if c.out.isPending() && c.IsWritable && !c.flush() {
		return
	}
	switch c.state {
	case atRest, readingHead:
		c.readHead()
	case discarding:
		c.discard()
	case lingering:
		c.linger()
	case flushing, closed:
	default:
		if c.HasEnded && c.hasLeft() {
			c.cut(ClientLeft)
			return
		}
		c.readBody()
	}
}

// readBody goes on with a body of which more may have arrived.
func (c *clientConn) readBody() {
	switch {
	case c.body.isDone || !c.IsReadable && len(c.rest) == 0:
	case c.state == collecting:
		if e, isEvent := c.collectBody(); isEvent {
			c.proceed(e)
		}
	case c.state == waiting:
		if e, isEvent := c.holdBody(); isEvent {
			c.proceed(e)
		}
	case c.replica != nil:
		c.passBody()
	}
}

// readHead reads more of a head, and begins an exchange when it is complete.
func (c *clientConn) readHead() {
	w, from := c.worker, len(c.in)
	if from == 0 || c.isParsed {
		room := w.input[frameRoom : frameRoom+maxHeadRead]
		if !c.IsReadable {
			return
		}
		n, err := c.Read(room)
		if err != nil {
			c.close()
			return
		}
		if n == 0 {
			return
		}
		c.in = w.memory.grow(c.in, room[:n])
		if from > 0 && !httpwire.HasHeadEnd(c.in, from) {
			c.waitForHead()
			return
		}
	}
	if c.x.Request.Fields == nil {
		c.x.Request.Fields = w.memory.takeFields()
	}
	n, err := c.x.Request.Parse(c.in)
	switch {
	case err != nil:
		c.refuse(err)
	case n == 0:
		c.isParsed = true
		c.waitForHead()
	default:
		c.rest = c.in[n:]
		c.beginExchange()
	}
}

// waitForHead limits the time for the rest of a head.
func (c *clientConn) waitForHead() {
	c.state = readingHead
	if !c.isTimed {
		c.isTimed = true
		c.worker.loop.Set(&c.timer, c.worker.limits.HeadTimeout)
	}
	if c.IsReadable {
		c.Again()
	}
}

// refuse answers a head that is not valid, as net/http does, and closes the connection.
func (c *clientConn) refuse(err error) {
	status, message := 400, err.Error()
	if refusal, ok := errors.AsType[*httpwire.Refusal](err); ok {
		status = refusal.Status
	}
	line := strconv.Itoa(status) + " " + statusText(status)
	reply := "HTTP/1.1 " + line + "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
		line + ": " + message
	c.state, c.willClose = flushing, true
	if err := c.out.send(&c.Socket, &c.worker.memory, []byte(reply)); err != nil {
		c.close()
		return
	}
	c.startLingering()
}

// beginExchange asks the director about a request whose head is complete.
func (c *clientConn) beginExchange() {
	w, x := c.worker, &c.x
	c.body.begin(x.Request.Length)
	if x.Request.Oddities&httpwire.OddPreface != 0 {
		c.response = responseState{} // that of the exchange before
		c.handOver()
		return
	}
	if c.HasEnded && c.hasLeft() {
		c.close()
		return
	}
	c.generation++
	c.isNew, c.isTimed, c.isParsed = false, false, false
	c.state, c.response, c.willClose, c.failure = waiting, responseState{}, x.Request.CloseAfter, nil
	x.reset()
	x.StartedAt = w.loop.Now()
	w.counts.exchanges.Add(1)
	w.loop.Clear(&c.timer)
	c.proceed(HeadArrived)
}

// proceed asks the director after an event, and performs its step.
func (c *clientConn) proceed(e Event) {
	for isEvent := true; isEvent; {
		step := c.ask(e)
		if c.failure != nil { // of WriteFirst
			c.cut(ClientLeft)
			return
		}
		e, isEvent = c.perform(step)
	}
}

// perform does a step. It may result in an event at once.
func (c *clientConn) perform(step Step) (Event, bool) {
	if step != Wait {
		c.leaveReplica()
	}
	switch step {
	case HandOver:
		c.handOver()
	case ReadBody:
		return c.collectBody()
	case Wait:
		if c.state == collecting {
			c.state = waiting
			c.limitClient()
		}
		if c.state == waiting {
			return c.holdBody()
		}
	case Send:
		return c.sendRequest()
	case Reply:
		c.reply()
	case Cut:
		c.cut(WasCut)
	default:
		panic("relay: the director returned no step")
	}
	return 0, false
}

// leaveReplica ends the use of a replica, or the wait for a connection to it, before it responds.
func (c *clientConn) leaveReplica() {
	if c.pool != nil {
		c.pool.removeWaiter(c)
	}
	if r := c.replica; r != nil {
		c.replica, r.client = nil, nil
		r.close()
	}
	if c.state == connecting || c.state == sent {
		c.state = waiting
	}
}

// keepMore keeps what was read beyond the end of the request.
func (c *clientConn) keepMore(b []byte) {
	if len(b) == 0 {
		c.rest = nil
		return
	}
	c.worker.memory.give(c.more)
	c.more = append(c.worker.memory.take(len(b)), b...)
	c.rest = c.more
}

// flush sends the pending output, and continues the exchange once all of it is sent. It reports whether the connection
// goes on.
func (c *clientConn) flush() bool {
	sent, err := c.out.flush(&c.Socket, &c.worker.memory)
	switch {
	case err != nil:
		c.cut(ClientLeft)
		return false
	case c.out.isPending():
		if sent > 0 {
			c.worker.loop.Set(&c.timer, c.worker.limits.StallTimeout)
		}
	case c.state == lingering:
		c.EndWrites()
	case c.response.isWhole:
		c.endExchange()
		return c.state != closed
	default:
		c.limitClient()
		if c.replica != nil && c.replica.IsReadable {
			c.replica.Again()
		}
	}
	return true
}

// write sends a part of the response. It reports false where the connection is lost; the exchange has ended then.
func (c *clientConn) write(p []byte) bool {
	if err := c.out.send(&c.Socket, &c.worker.memory, p); err != nil {
		c.cut(ClientLeft)
		return false
	}
	if c.out.isPending() {
		c.worker.loop.Set(&c.timer, c.worker.limits.StallTimeout)
	}
	return true
}

// finishResponse ends the exchange once all is sent.
func (c *clientConn) finishResponse() {
	c.response.isWhole = true
	if c.out.isPending() {
		c.state = flushing
		return
	}
	c.endExchange()
}

// endExchange is called when all of the response is sent.
func (c *clientConn) endExchange() {
	c.release()
	switch {
	case c.response.isBroken:
		if c.response.isUntilClose {
			c.Reset()
		}
		c.close()
	case c.willClose:
		c.startLingering()
	case c.body.isDone:
		c.waitForRequest()
	default:
		c.state = discarding
		c.worker.loop.Set(&c.timer, c.worker.limits.StallTimeout)
		c.discard()
	}
}

// release tells the director that the exchange has ended, and gives its memory back.
func (c *clientConn) release() {
	w, x := c.worker, &c.x
	c.leaveReplica()
	w.asks = c
	w.relay.options.Director.End(x)
	w.asks = nil
	c.generation++
	w.loop.Clear(&c.wakeTimer)
	w.counts.exchanges.Add(-1)
	x.Body, x.Failure = nil, nil
	c.body.release()
}

// waitForRequest waits for the next request, a part of which may be there already.
func (c *clientConn) waitForRequest() {
	w := c.worker
	c.state = atRest
	rest := c.rest
	c.rest = nil
	if len(rest) == 0 {
		w.memory.give(c.in)
		w.memory.give(c.more)
		c.in, c.more = nil, nil
		w.memory.giveFields(c.x.Request.Fields)
		c.x.Request = httpwire.RequestHead{}
		if w.isDraining {
			c.drainAtRest()
			return
		}
		w.loop.Set(&c.timer, w.limits.IdleTimeout)
		if c.IsReadable {
			c.Again()
		}
		return
	}
	in := append(w.memory.take(len(rest)), rest...)
	w.memory.give(c.in)
	w.memory.give(c.more)
	c.in, c.more = in, nil
	c.waitForHead()
	c.Again()
}

// isExchanging reports whether the director has an exchange.
func (c *clientConn) isExchanging() bool {
	return c.state >= collecting && c.state <= flushing && c.generation%2 == 1
}
