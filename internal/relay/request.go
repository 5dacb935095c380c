package relay

import (
	"net/netip"

	"dstack/internal/httpwire"
)

// sendRequest sends the request to x.Replica, over a kept connection or a new one.
func (c *clientConn) sendRequest() (Event, bool) {
	w, x := c.worker, &c.x
	if x.IsBodySent {
		w.relay.options.Log.Error("the director sends a request again whose body is gone", "replica", x.Replica)
		c.cut(WasCut)
		return 0, false
	}
	p := w.pools[x.Replica]
	if p == nil {
		address, err := netip.ParseAddrPort(x.Replica)
		if err != nil {
			x.Failure = err
			c.state = waiting
			return ConnectFailed, true
		}
		p = newReplicaPool(w, x.Replica, address)
		w.pools[x.Replica] = p
	}
	if r := p.takeKept(); r != nil {
		c.useReplica(r)
		return 0, false
	}
	c.state, c.waitsAt = connecting, w.loop.Now()
	p.addWaiter(c)
	return 0, false
}

// useReplica sends the request over a connection.
func (c *clientConn) useReplica(r *replicaConn) {
	w, x := c.worker, &c.x
	c.state, c.replica, r.client = sent, r, c
	r.beginUse()
	target := x.Target
	if target == nil {
		target = x.Request.Target
	}
	body, isWhole := c.wholeBody()
	length := x.Request.Length
	if isWhole {
		length = int64(len(body))
	}
	w.head = x.Request.Append(w.head[:0], target, x.Extra, length)
	if !isWhole {
		pass, end, n, err := c.body.frame(c.rest[:min(len(c.rest), maxJoined)], w.extra[:0])
		if err != nil {
			c.failBody(err)
			return
		}
		c.rest = c.rest[n:]
		x.IsBodySent = len(pass)+len(end) > 0
		w.head = append(append(w.head, pass...), end...)
		if r.write(w.head); c.replica == r {
			c.passBody()
		}
		return
	}
	if len(body) <= maxJoined {
		w.head = append(w.head, body...)
		r.write(w.head)
	} else {
		r.writeWithBody(w.head, body)
	}
	if c.replica == r {
		r.limitResponse()
	}
}

// canResend reports whether the request may be sent over another connection of the same replica, after a kept one broke.
func (c *clientConn) canResend(r *replicaConn) bool {
	return r.uses > 1 && !c.x.IsBodySent && (c.x.IsReplayable || !r.hasWritten)
}

// connectFailed is called when there is no connection to the replica.
func (c *clientConn) connectFailed(err error) {
	c.x.Failure = err
	c.state = waiting
	c.proceed(ConnectFailed)
}

// replicaFailed is called when the replica's connection has ended, or is of no use, before the response.
func (c *clientConn) replicaFailed(e Event, err error) {
	c.x.Failure = err
	c.state = waiting
	c.proceed(e)
}

// reply sends the director's own response.
func (c *clientConn) reply() {
	w, x := c.worker, &c.x
	w.loop.Clear(&c.timer)
	w.loop.Clear(&c.wakeTimer)
	x.FirstByteAt = w.loop.Now()
	if c.response.hasBegun {
		w.head = w.head[:0]
		if len(x.Reply) > 0 {
			w.head = appendChunk(w.head, x.Reply, c.response.inChunks)
			x.Sent += int64(len(x.Reply))
		}
		if c.response.inChunks {
			w.head = append(w.head, httpwire.LastChunk...)
		}
		c.willClose = c.willClose || !c.body.isDone
	} else {
		x.Status, x.Sent = statusOf(x.Reply), bodyLength(x.Reply)
		c.willClose = c.willClose || x.CloseClient || w.isDraining || !c.canDiscard()
		w.head = appendWithClose(w.head[:0], x.Reply, c.willClose)
	}
	c.response.hasBegun = true
	if c.write(w.head) {
		c.finishResponse()
	}
}

// maxDiscarded is the longest rest of a body that the relay reads and drops to keep a connection.
const maxDiscarded = 256 << 10

// canDiscard reports whether the connection can be kept although the request was answered without its body.
func (c *clientConn) canDiscard() bool {
	b := &c.body
	return b.isDone || !b.isChunked && b.left <= maxDiscarded
}

// writeFirst begins the response, or goes on with it.
func (c *clientConn) writeFirst(head, body []byte) {
	w, x := c.worker, &c.x
	w.head = w.head[:0]
	if head != nil {
		x.Status, x.FirstByteAt = statusOf(head), w.loop.Now()
		c.response.hasBegun = true
		c.response.inChunks = x.Request.Oddities&httpwire.OddVersion == 0
		c.response.isUntilClose = !c.response.inChunks
		c.willClose = c.willClose || x.CloseClient || w.isDraining || c.response.isUntilClose
		w.head = append(w.head, head[:len(head)-len(httpwire.ChunkEnd)]...)
		if c.response.inChunks {
			w.head = append(w.head, "Transfer-Encoding: chunked\r\n"...)
		}
		if c.willClose {
			w.head = append(w.head, closeField...)
		}
		w.head = append(w.head, httpwire.ChunkEnd...)
	}
	if len(body) > 0 {
		x.Sent += int64(len(body))
		w.head = appendChunk(w.head, body, c.response.inChunks)
	}
	if err := c.out.send(&c.Socket, &w.memory, w.head); err != nil {
		c.failure = err
		return
	}
	if c.out.isPending() {
		w.loop.Set(&c.timer, w.limits.StallTimeout)
	}
}
