package relay

import (
	"bytes"
	"net/http"
	"runtime/debug"
	"time"
)

// drainAtRest closes a connection at rest, unless a request has arrived, or a new client has not had the time to send one.
func (c *clientConn) drainAtRest() {
	if c.isNew {
		c.worker.loop.Set(&c.timer, lateFirstByte)
		return
	}
	c.IsReadable = true
	if c.readHead(); c.state == atRest {
		c.close()
	}
}

// hasLeft reports whether a client that has ended its side of the connection has left. One that has sent more requests before
// has not, until these are served.
func (c *clientConn) hasLeft() bool {
	if !c.body.isDone || c.HasFailed {
		return true
	}
	for len(c.rest) == 0 {
		room := c.worker.input[frameRoom : frameRoom+maxHeadRead]
		n, err := c.Read(room)
		if err != nil {
			return true
		}
		if n == 0 {
			return false
		}
		c.keepMore(room[:n])
	}
	return false
}

// cut ends the exchange, if there is one, and the connection. What waits to be sent of a response that a replica broke off is
// sent.
func (c *clientConn) cut(o Outcome) {
	if !c.isExchanging() {
		c.close()
		return
	}
	c.x.Outcome = o
	if o == ReplicaBroke && c.out.isPending() {
		c.leaveReplica()
		c.state, c.response.isWhole, c.response.isBroken = flushing, true, true
		return
	}
	c.release()
	if c.response.isUntilClose && (!c.response.isWhole || c.out.isPending()) {
		c.Reset() // or the client would take the end of the connection for that of the response
	}
	c.close()
}

// abandon closes the connection after a panic, which may have left anything half done. The director is told, so that it does not
// count the exchange for ever.
func (c *clientConn) abandon() {
	w := c.worker
	if c.state == closed {
		return
	}
	if !c.isExchanging() {
		c.Reset()
		c.forget()
		return
	}
	c.generation++
	w.counts.exchanges.Add(-1)
	c.leaveReplica()
	if c.x.Outcome = WasCut; !c.response.hasBegun {
		c.x.Status = http.StatusInternalServerError
		_, _ = c.Write([]byte(panicReply)) // its client left
		c.Close()
	}
	func() {
		defer func() { _ = recover() }() // it may be End that panics
		w.relay.options.Director.End(&c.x)
	}()
	c.x.Body = nil
	c.body.release()
	c.Reset()
	c.forget()
}

const panicReply = "HTTP/1.1 500 Internal Server Error\r\n" + closeField + "Content-Length: 0\r\n\r\n"

// survive is called after a panic while a connection was served. Only its exchange ends.
func (w *worker) survive(of, value any) {
	w.relay.options.Log.Error("panic while serving", "panic", value, "stack", string(debug.Stack()))
	asked := w.asks
	w.asks = nil
	switch of := of.(type) {
	case *clientConn:
		of.abandon()
	case *clientTimeout:
		(*clientConn)(of).abandon()
	case *exchangeTimeout:
		(*clientConn)(of).abandon()
	case *replicaConn:
		if c := of.client; c != nil {
			c.abandon()
		}
		of.abandon()
	}
	if asked != nil {
		asked.abandon()
	}
}

// startLingering closes the connection such that the client gets all that was sent: what it still sends is read for a while,
// since the connection would be reset otherwise.
func (c *clientConn) startLingering() {
	if !c.out.isPending() {
		if c.body.isDone && len(c.rest) == 0 && !c.IsReadable {
			c.close()
			return
		}
		c.EndWrites()
	}
	c.state = lingering
	c.worker.loop.Set(&c.timer, lingerTime)
	c.linger()
}

// lingerTime is how long a client has to read a response before its connection is closed.
const lingerTime = 2 * time.Second

// linger drops what arrives.
func (c *clientConn) linger() {
	for range maxReads {
		if !c.IsReadable {
			return
		}
		if _, err := c.Read(c.worker.input); err != nil {
			c.close()
			return
		}
	}
	c.Again()
}

// close closes the connection at rest, or after its exchange.
func (c *clientConn) close() {
	if c.state == closed {
		return
	}
	c.Close()
	c.forget()
}

// forget gives back what the connection has.
func (c *clientConn) forget() {
	w := c.worker
	c.state = closed
	c.out.release(&w.memory)
	w.memory.give(c.in)
	w.memory.give(c.more)
	w.memory.giveFields(c.x.Request.Fields)
	c.in, c.more, c.rest = nil, nil, nil
	c.x.Request.Fields = nil
	w.loop.Remove(&c.timer)
	w.loop.Remove(&c.wakeTimer)
	w.clients.remove(c)
	w.counts.connections.Add(-1)
	w.relay.noteClosed()
}

// handOver gives the connection to net/http, with all that was read of it since the last exchange.
func (c *clientConn) handOver() {
	if c.isExchanging() {
		c.generation++
		c.worker.counts.exchanges.Add(-1)
	}
	prefix := c.body.appendRead(c.in[:c.x.Request.Size:c.x.Request.Size], c.x.Body)
	prefix = append(prefix, c.rest...)
	c.body.release()
	handed := handedConn{prefix: prefix, memo: c.x.Memo, skipsHead: c.response.hasBegun, unsent: bytes.Clone(c.out.buffer)}
	if len(handed.unsent) > 0 {
		handed.unsent = handed.unsent[c.out.sent:]
	}
	conn, err := c.Detach()
	if err != nil {
		c.worker.relay.options.Log.Warn("cannot hand a connection over", "err", err)
		c.close()
		return
	}
	c.in = nil // the connection has it
	c.forget()
	c.listener.deliver(newHandedConn(conn, handed))
}
